"""Optimizers on functions of one or two numbers: `python -m examples.landscapes`."""
