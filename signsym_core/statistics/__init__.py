"""Intervals for means over images and seeds, and rank correlation."""
