"""A Grid in, the jobs that it still needs out, with what they will cost."""
