"""Scores over whole sets, on the host, in NumPy."""
