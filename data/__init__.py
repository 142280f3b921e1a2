"""Datasets: sources that yield dict batches."""
