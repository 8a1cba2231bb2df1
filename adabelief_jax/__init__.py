"""AdaBelief for JAX, after Optax's conventions.

`adabelief` is the optimizer and takes the place of `optax.adabelief`; `scale_by_belief` is its direction
alone, for chains of your own. Both take the core's steps, under `jit` as without it. `presets` are
the authors' recommended settings.
"""

from adabelief_jax import presets
from adabelief_jax._adabelief import adabelief
from adabelief_jax._portable import restore, snapshot
from adabelief_jax._scale_by_belief import scale_by_belief
from adabelief_jax._state import ScaleByBeliefState

__all__ = ["ScaleByBeliefState", "adabelief", "presets", "restore", "scale_by_belief", "snapshot"]
