"""Torch modules: shapes on each line, no files, no cards."""
