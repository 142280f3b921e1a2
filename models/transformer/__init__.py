"""Transformers: an encoder with a decoder, decoders alone, encoders alone.

All return `models.layers.sequence.Prediction` and generate by `begin` and `advance`.
"""
