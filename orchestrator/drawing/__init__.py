"""Figures and tables as they are drawn, on a page and in a paper."""
