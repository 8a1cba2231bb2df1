"""AdaBelief for Keras 3, on its TensorFlow, JAX and PyTorch backends.

One optimizer, `AdaBelief`, with the conventions of Keras: `model.compile(optimizer=...)`, `.keras`
files, schedules, clipping, mixed precision. Its steps are those of `adabelief_core`, bit for bit, on
each backend; only the active one is imported.
"""

from adabelief_tf._optimizer import AdaBelief
from adabelief_tf._portable import restore, snapshot

__all__ = ["AdaBelief", "restore", "snapshot"]
