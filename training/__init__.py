"""Recipes that made every weight file shipped with the package; nothing here is imported by the package."""
