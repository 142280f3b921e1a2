"""Models of others: directories as Hugging Face publishes them, read and written.

Nothing of PyTorch or of Transformers is needed, and nothing of ours is known here but names: of
models and their settings, and of parameters. Arrays are NumPy's. See docs/huggingface.md.
"""
