"""AdaBelief for Keras 3, on its TensorFlow, JAX and PyTorch backends.

One optimizer, `AdaBelief`, with the conventions of Keras: `model.compile(optimizer="adabelief")`, `.keras`
files, schedules, clipping, mixed precision. Its steps are those of `adabelief_core`, bit for bit, on
each backend; only the active one is imported. `AdaBeliefOptimizer` takes adabelief-tf's arguments.
`presets` are the authors' recommended settings.
"""

import keras

from adabelief_tf import presets
from adabelief_tf._drop_in import AdaBeliefOptimizer, WarmupLinearDecay
from adabelief_tf._optimizer import AdaBelief
from adabelief_tf._portable import restore, snapshot

# By these names Keras finds them in `compile`, `keras.optimizers.get`, and files of adabelief-tf's time.
for _class in (AdaBelief, AdaBeliefOptimizer):
    keras.saving.get_custom_objects().update({_class.__name__: _class, _class.__name__.lower(): _class})

__all__ = ["AdaBelief", "AdaBeliefOptimizer", "WarmupLinearDecay", "presets", "restore", "snapshot"]
