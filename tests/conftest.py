"""Hypothesis' examples have no deadline: the first may compile a kernel, and no test measures time."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
