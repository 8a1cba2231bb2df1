"""The authors' settings in Keras' names: the core's steps."""

import keras
import numpy as np
import pytest
from keras_helpers import G

import adabelief_core
from adabelief_tf import AdaBelief, presets


@pytest.mark.parametrize("name", adabelief_core.presets.__all__)
def test_a_preset_takes_the_cores_steps(name):
    params = {"w": np.float32([1.0, -2.0, 0.5])}
    core = adabelief_core.AdaBelief(params, **getattr(adabelief_core.presets, name))
    variable = keras.Variable(params["w"].copy())
    optimizer = AdaBelief(**getattr(presets, name))
    for g in G[:2]:
        optimizer.apply([keras.ops.convert_to_tensor(g)], [variable])
        core.step({"w": g})
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable.value), params["w"])


def test_they_are_read_only():
    with pytest.raises(TypeError, match="does not support item assignment"):
        presets.GAN["learning_rate"] = 1.0
