"""The Optax adapter beside Optax' own optimizers, under jit with donated buffers."""

import jax
import jax.numpy as jnp
import optax
from common import LARGE, ROUNDS, SMALL, median_ms, report

from adabelief_jax import adabelief

OURS = "adabelief_jax.adabelief"


def contender(optimizer, shapes):
    params = {str(i): jnp.ones(shape) for i, shape in enumerate(shapes)}
    grads = {name: 0.1 * jax.random.normal(jax.random.key(0), p.shape) for name, p in params.items()}
    state = optimizer.init(params)

    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, grads).compile()
    kept = [params, state]

    def call():
        kept[:] = compiled(*kept, grads)
        jax.block_until_ready(kept)

    return call, compiled.memory_analysis().temp_size_in_bytes


for case, shapes, rounds in (
    (f"Optax under jit, {LARGE // 10**6} million float32", [(LARGE,)], ROUNDS),
    (f"Optax under jit, {len(SMALL)} small tensors", SMALL, 20 * ROUNDS),
):
    optimizers = {OURS: adabelief(1e-3), "optax.adabelief": optax.adabelief(1e-3), "optax.adamw": optax.adamw(1e-3)}
    made = {name: contender(optimizer, shapes) for name, optimizer in optimizers.items()}
    notes = {name: f"temporaries: {size / 1e6:.1f} MB" for name, (_, size) in made.items()}
    report(case, OURS, median_ms({name: call for name, (call, _) in made.items()}, rounds), notes)
