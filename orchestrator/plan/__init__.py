"""A Grid in, its missing jobs out, with their estimated cost."""
