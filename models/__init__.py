"""Pure Flax modules, one file a published system."""
