"""Generative adversarial networks.

Axes, in every file of this family: B examples, D data dimensions, Z noise dimensions. The top-level
parameter groups are `generator` and `discriminator`.
"""
