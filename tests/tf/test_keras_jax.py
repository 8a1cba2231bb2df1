"""JAX's own ways to train: sparse gradients, and data-parallel devices."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras_helpers import G, core, run, values

from adabelief_tf import AdaBelief

if keras.backend.backend() != "jax":
    pytest.skip("about the jax backend", allow_module_level=True)
import jax
import jax.numpy as jnp
from jax.experimental import sparse

DENSE = np.float32([[0, 0], [3, 5], [0, 0]])


@pytest.mark.parametrize(
    "options", [{}, {"clipnorm": 1.0}, {"gradient_accumulation_steps": 2}, {"loss_scale_factor": 4.0}]
)
@pytest.mark.parametrize("jit", [False, True])
def test_a_sparse_gradient_is_its_dense_one(jit, options):
    """Repeated indices add up first, and every row steps."""
    gradient = sparse.BCOO((jnp.float32([[1, 2], [2, 3]]), jnp.array([[1], [1]])), shape=(3, 2))
    results = []
    for g in (gradient, jnp.asarray(DENSE)):
        optimizer, v = AdaBelief(0.125, **options), keras.Variable(np.ones((3, 2), np.float32))
        optimizer.build([v])
        apply = jax.jit(optimizer.stateless_apply) if jit else optimizer.stateless_apply
        p, state = [v.value], [x.value for x in optimizer.variables]
        for each in (g, g, jnp.asarray(DENSE[::-1])):
            p, state = apply(state, [each], p)
        results.append([*p, *state])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (np.asarray(results[0][0]) != 1).any()


def test_the_sparse_gradient_of_an_embedding():
    table = keras.Variable(np.arange(14, dtype=np.float32).reshape(7, 2))
    ids = jnp.array([[1], [1], [5]])
    rows = jax.grad(lambda rows: (rows**2).sum())(table.value[ids[:, 0]])
    gradient = sparse.BCOO((rows, ids), shape=(7, 2))
    expected = core([np.asarray(gradient.todense())], start=values(table))
    AdaBelief(0.125).apply([gradient], [table])
    np.testing.assert_array_equal(values(table), expected)


def test_eager_steps_are_those_of_a_jitted_loop():
    options = {"rectify": True, "weight_decay": 0.5}
    optimizer, v = AdaBelief(0.125, **options), keras.Variable(np.float32([1, 2, 3]))
    optimizer.build([v])

    def body(carry, g):
        p, state = optimizer.stateless_apply(carry[1], [g], carry[0])
        return (p, state), None

    (p, _), _ = jax.jit(lambda carry, grads: jax.lax.scan(body, carry, grads))(
        ([v.value], [x.value for x in optimizer.variables]), jnp.stack(G)
    )
    np.testing.assert_array_equal(p[0], values(run(G, **options)[1]))


DEVICES = """
import jax, keras, numpy as np
from adabelief_core import AdaBelief as Core
from adabelief_tf import AdaBelief

assert len(jax.devices()) == 8
keras.distribution.set_distribution(keras.distribution.DataParallel())
rng = np.random.default_rng(0)
options = {"weight_decay": 0.1, "rectify": True, "amsgrad": True}
params = {"w": rng.standard_normal((16, 5), np.float32), "b": rng.standard_normal(5, np.float32)}
variables = [keras.Variable(p, name=name) for name, p in params.items()]
optimizer, core = AdaBelief(0.125, **options), Core(params, lr=0.125, **options)
optimizer.build(variables)
apply = jax.jit(optimizer.stateless_apply, donate_argnums=(0, 2))
p, state = [v.value for v in variables], [v.value for v in optimizer.variables]
assert all(len(x.sharding.device_set) == 8 for x in [*p, *state])
for _ in range(7):
    grads = {name: rng.standard_normal(x.shape, np.float32) for name, x in params.items()}
    core.step(grads)
    p, state = apply(state, [jax.device_put(g, x.sharding) for g, x in zip(grads.values(), p)], p)
for x, expected in zip(p, params.values()):
    for shard in x.addressable_shards:
        np.testing.assert_array_equal(shard.data, expected)

model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)])
model.compile(optimizer=AdaBelief(0.05), loss="mse")
x = rng.standard_normal((64, 4), np.float32)
losses = model.fit(x, x.sum(axis=1, keepdims=True), batch_size=16, epochs=8, verbose=0).history["loss"]
assert losses[-1] < 0.5 * losses[0]
print("done")
"""


def test_eight_devices_end_with_the_bits_of_one():
    flags = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    command = [sys.executable, "-W", "ignore", "-c", DEVICES]
    result = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "done", result.stderr[-2000:]
