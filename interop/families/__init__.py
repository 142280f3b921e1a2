"""One file for each `model_type` of config.json; each defines `FAMILY`."""
