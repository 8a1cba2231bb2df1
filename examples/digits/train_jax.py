"""The same classifier in JAX, with Optax."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from problem import LEARNING_RATE, data, epochs, finish, initial_weights

from adabelief_jax import adabelief

train_x, train_y, test_x, test_y = data()
params = {name: jnp.asarray(w) for name, w in initial_weights().items()}
optimizer = adabelief(LEARNING_RATE)
state = optimizer.init(params)


def forward(params, x):
    for i in range(3):
        x = x @ params[f"kernel{i}"] + params[f"bias{i}"]
        x = jax.nn.relu(x) if i < 2 else x
    return x


def mean_loss(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(forward(params, x), y).mean()


@jax.jit
def step(params, state, x, y):
    loss, grads = jax.value_and_grad(mean_loss)(params, x, y)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, loss


losses, accuracies = [], []
for batches in epochs("optax"):
    total = 0.0
    for batch in batches:
        params, state, loss = step(params, state, train_x[batch], train_y[batch])
        total += float(loss)
    losses.append(total / len(batches))
    accuracies.append(float((forward(params, test_x).argmax(1) == test_y).mean()))

finish("optax", Path(sys.argv[1]), losses, accuracies)
