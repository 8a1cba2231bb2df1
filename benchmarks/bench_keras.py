"""A Keras train step, forward and backward pass included, and the optimizer's step alone, beside Keras' own AdamW."""

import keras
import numpy as np
from common import ROUNDS, SMALL, median_ms, report

from adabelief_tf import AdaBelief

OURS = "adabelief_tf.AdaBelief"
WIDTH = 1024
BACKEND = keras.backend.backend()

x = np.random.default_rng(0).standard_normal((32, WIDTH)).astype("float32")
y = np.zeros((32, WIDTH), "float32")


def train_step(optimizer):
    layers = [keras.layers.Dense(WIDTH, activation="relu") for _ in range(10)]
    model = keras.Sequential([keras.layers.Input((WIDTH,)), *layers])
    model.compile(optimizer=optimizer, loss="mse")

    def call():
        return model.train_on_batch(x, y)

    return call


def step(optimizer, shapes):
    """The optimizer's step alone, as `fit` compiles it."""
    variables = [keras.Variable(np.ones(shape, "float32")) for shape in shapes]
    grads = [keras.ops.full(shape, 0.5) for shape in shapes]
    optimizer.build(variables)
    if BACKEND == "jax":
        import jax

        state = [v.value for v in variables], [v.value for v in optimizer.variables]
        apply = jax.jit(lambda state, grads: optimizer.stateless_apply(state[1], grads, state[0]), donate_argnums=0)

        def call():
            nonlocal state
            state = jax.block_until_ready(apply(state, grads))

        return call
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(lambda: optimizer.apply(grads))
    return lambda: optimizer.apply(grads)


CASES = {
    "train step, 10 million float32": train_step,
    "step alone, 10 million float32": lambda optimizer: step(optimizer, [(WIDTH, WIDTH), (WIDTH,)] * 10),
    f"step alone, {len(SMALL)} small tensors": lambda optimizer: step(optimizer, SMALL),
}
for case, contender in CASES.items():
    calls = {OURS: contender(AdaBelief(1e-3)), "keras.optimizers.AdamW": contender(keras.optimizers.AdamW(1e-3))}
    report(f"Keras on {BACKEND}, {case}", OURS, median_ms(calls, 2 * ROUNDS))
