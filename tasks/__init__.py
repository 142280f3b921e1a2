"""Objectives: what is minimised, what is measured, what is worth looking at."""
