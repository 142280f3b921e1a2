"""Reproduction: what experiments claim, what was measured, whether it holds."""
