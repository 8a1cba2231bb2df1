"""The Optax adapter beside Optax' own optimizers under jit: steps with donated buffers, and their compilation."""

import jax
import jax.numpy as jnp
import optax
from common import LARGE, ROUNDS, SMALL, median_ms, report

from adabelief_jax import adabelief

OURS = "adabelief_jax.adabelief"
MAKE = {OURS: adabelief, "optax.adabelief": optax.adabelief, "optax.adamw": optax.adamw}
EQUAL = [(5_000,)] * 200
LAYERS = [shape for width in range(64, 512, 32) for shape in ((width, width + 32), (width + 32,))]


def arguments(optimizer, shapes):
    params = {str(i): jnp.ones(shape) for i, shape in enumerate(shapes)}
    grads = {name: 0.1 * jax.random.normal(jax.random.key(0), p.shape) for name, p in params.items()}
    return params, optimizer.init(params), grads


def compiled(optimizer, *args):
    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1)).lower(*args).compile()


def contender(optimizer, shapes):
    *kept, grads = arguments(optimizer, shapes)
    step = compiled(optimizer, *kept, grads)

    def call():
        kept[:] = step(*kept, grads)
        jax.block_until_ready(kept)

    return call, step.memory_analysis().temp_size_in_bytes


def compilation(make, shapes):
    """Of a process that has traced and compiled nothing yet."""
    args = arguments(make(1e-3), shapes)

    def call():
        jax.clear_caches()
        compiled(make(1e-3), *args)

    return call


for case, shapes, rounds in (
    (f"Optax under jit, {LARGE // 10**6} million float32", [(LARGE,)], ROUNDS),
    (f"Optax under jit, {len(SMALL)} small tensors", SMALL, 20 * ROUNDS),
    (f"Optax under jit, {len(EQUAL)} tensors of {EQUAL[0][0]:,}", EQUAL, 20 * ROUNDS),
):
    made = {name: contender(make(1e-3), shapes) for name, make in MAKE.items()}
    notes = {name: f"temporaries: {size / 1e6:.1f} MB" for name, (_, size) in made.items()}
    report(case, OURS, median_ms({name: call for name, (call, _) in made.items()}, rounds), notes)

for case, shapes in (
    (f"Optax, trace and compile a step of {len(EQUAL)} tensors of {EQUAL[0][0]:,}", EQUAL),
    (f"Optax, trace and compile a step of {len(LAYERS)} tensors of as many shapes", LAYERS),
    ("Optax, trace and compile a step of one tensor", LAYERS[:1]),
):
    report(case, OURS, median_ms({name: compilation(make, shapes) for name, make in MAKE.items()}, 5, warm_up=1))
