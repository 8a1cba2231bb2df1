"""LSTMs of one, two and three layers on text: `python -m examples.language_modelling`."""
