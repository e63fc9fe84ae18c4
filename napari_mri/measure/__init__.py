"""Figures about volumes and labels, with their units."""
