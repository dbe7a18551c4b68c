"""Benchmarks: each prints our time, its peer's and their ratio, measured in turn in the same run."""
