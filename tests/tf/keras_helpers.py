"""What several test files need: gradients, a run of a few steps on one variable, and comparisons of bits."""

import keras
import numpy as np
from keras import ops

from adabelief_core import AdaBelief as Core
from adabelief_tf import AdaBelief

G = [np.float32([0.5, -2.0, 3.0]), np.float32([1.5, 0.25, -1.0]), np.float32([-0.5, 4.0, 0.125])]


def run(grads, *, start=(1.0, 2.0, 3.0), dtype="float32", constraint=None, **options):
    variable = keras.Variable(np.float32(start), dtype=dtype, name="w")
    variable.constraint = constraint
    optimizer = AdaBelief(0.125, **options)
    for g in grads:
        optimizer.apply([ops.convert_to_tensor(g, dtype)], [variable])
    return optimizer, variable


def values(variable):
    return ops.convert_to_numpy(ops.cast(variable.value, "float32"))


def same(a, b):
    np.testing.assert_array_equal(values(a), values(b))


def core(grads, *, start=(1.0, 2.0, 3.0), lr=0.125, dtype=np.float32, **options):
    """The parameter after these steps of the core."""
    params = {"w": np.array(start, dtype)}
    optimizer = Core(params, lr=lr, **options)
    for g in grads:
        optimizer.step({"w": np.asarray(g, dtype)})
    return params["w"]
