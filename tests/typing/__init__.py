"""Checked by mypy, never run: what users write against kasmos' types."""
