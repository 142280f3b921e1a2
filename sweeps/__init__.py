"""Sweeps: which trials to run, the ledger of what ran, the engines that run them."""
