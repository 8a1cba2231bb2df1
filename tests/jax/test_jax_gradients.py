"""Gradients through many steps: what a schedule, a meta-learner or a hypergradient method takes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adabelief_core import Hyperparameters, step_scalars
from adabelief_jax import adabelief

NUMBERS = {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "eps": 1e-8, "eps_root": 1e-8, "weight_decay": 0.01}
TARGET = np.array([1.0, -0.5, 0.25, 0.0])
START = np.array([0.5, 1.5, -1.0, 0.0])
RECTIFIED = {"betas": (0.9, 0.99), "rectify": True}


def trajectory(numbers, p, steps, **options):
    """The loss after each step; at the last element gradient and parameter are exactly 0."""
    opt = adabelief(**numbers, **options)

    def body(carry, _):
        p, state = carry
        updates, state = opt.update((p - TARGET.astype(p.dtype)) * 2, state, p)
        p = optax.apply_updates(p, updates)
        return (p, state), jnp.sum((p.astype(jnp.float32) - TARGET.astype(np.float32)) ** 2)

    return jax.lax.scan(body, (p, opt.init(p)), length=steps)[1]


def finite(tree):
    return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, jnp.float32),
        ({"rectify": True}, jnp.float32),
        ({"rectify": True, "degenerated_to_sgd": False, "amsgrad": True, "nesterov": True}, jnp.float32),
        ({"update_clip": 0.2}, jnp.float32),
        ({"rectify": True, "kahan_sum": True, "mu_dtype": "bfloat16", "nu_dtype": "float16"}, jnp.bfloat16),
    ],
)
def test_every_step_has_finite_meta_gradients(options, dtype):
    """The loss after each step by every number and by the start, forwards: from step 1, across the switch at 5 or 6."""
    first = next(t for t in range(1, 9) if step_scalars(np.float64(t), Hyperparameters(**RECTIFIED)).adaptive)
    assert first in (5, 6)
    numbers = {name: jnp.float32(x) for name, x in NUMBERS.items()}
    jacobian = jax.jit(jax.jacfwd(lambda *xs: trajectory(*xs, 9, **options), argnums=(0, 1)))
    slopes = jacobian(numbers, jnp.asarray(START, dtype))
    assert finite(slopes)
    # Before the switch no line reads β2.
    moved = np.asarray(slopes[0]["b2"]) != 0
    assert moved.tolist() == [not options.get("rectify") or t >= first for t in range(1, 10)]


def test_backwards_and_forwards_agree():
    """Over 40 steps with rectification, also where each step is computed again on the way back."""
    with jax.enable_x64(True):
        numbers = {name: jnp.float64(x) for name, x in NUMBERS.items()}

        def loss(numbers, p):
            return jnp.sum(trajectory(numbers, p, 40, rectify=True) * 0.5)

        start = jnp.asarray(START[:3])[jnp.array([0, 1, 2, 2])]
        back = jax.jit(jax.grad(loss, (0, 1)))(numbers, start)
        again = jax.jit(jax.grad(jax.checkpoint(loss), (0, 1)))(numbers, start)
        forward = jax.jit(jax.jacfwd(loss, (0, 1)))(numbers, start)
        for other in (again, forward):
            for x, y in zip(jax.tree.leaves(back), jax.tree.leaves(other), strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)
        assert float(back[0]["learning_rate"]) < 0


def test_an_ensemble_learns_its_learning_rates():
    """Descent on the learning rate, of several runs at once, each through 20 steps of its own."""
    numbers = {name: x for name, x in NUMBERS.items() if name != "learning_rate"}

    def loss(log_rate):
        return trajectory({**numbers, "learning_rate": jnp.exp(log_rate)}, jnp.float32(START), 20)[-1]

    outer = adabelief(0.1)
    rates = jnp.log(jnp.float32([0.003, 0.01, 0.03]))

    def body(carry, _):
        rates, state = carry
        losses, slopes = jax.vmap(jax.value_and_grad(loss))(rates)
        updates, state = outer.update(slopes, state, rates)
        return (optax.apply_updates(rates, updates), state), losses

    losses = jax.jit(lambda rates: jax.lax.scan(body, (rates, outer.init(rates)), length=25)[1])(rates)
    assert finite(losses)
    assert (losses[-1] < 0.5 * losses[0]).all()


def test_second_derivatives_are_finite():
    curve = jax.hessian(lambda p: trajectory(NUMBERS, p, 7, rectify=True)[-1])(jnp.float32(START))
    assert finite(curve)
