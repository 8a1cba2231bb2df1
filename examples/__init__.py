"""Experiments on data that every machine has: `python -m examples.NAME`, from the root of the repository."""
