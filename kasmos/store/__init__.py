"""The journal, what it folds to, and the state directory with its lock."""
