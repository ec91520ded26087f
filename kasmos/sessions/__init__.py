"""Places where programs run, behind one contract."""
