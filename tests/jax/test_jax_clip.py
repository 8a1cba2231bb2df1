"""`update_clip`: where g - m goes to 0 no step is longer than lr·k·update_clip, op by op and compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adabelief_core import Hyperparameters
from adabelief_jax import adabelief, scale_by_belief
from adabelief_jax._portable import optimizer_of

STEPS = 3000
CASES = {
    "constant": (optax.identity(), 0.9, 3.0, 0.0),
    "clipped by element": (optax.clip(1.0), 0.9, 3.0, 0.4),
    "no momentum": (optax.identity(), 0.0, 0.0, 1.0),
}
"""What comes first, b1, and the mean and the spread of the gradients."""


def longest(case, make, **options):
    """The longest element of the last steps, with a learning rate of 1."""
    first, b1, mean, spread = CASES[case]
    opt = optax.chain(first, make(b1=b1, b2=0.99, **options))

    def body(state, key):
        updates, state = opt.update(mean + spread * jax.random.normal(key, 4), state)
        return state, jnp.abs(updates).max()

    keys = jax.random.split(jax.random.key(0), STEPS)
    return float(jax.jit(lambda: jax.lax.scan(body, opt.init(jnp.zeros(4)), keys)[1])()[-100:].max())


def whole(**options):
    return adabelief(1.0, **options)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("make", [whole, scale_by_belief])
def test_without_it_the_step_grows_and_with_it_it_does_not(case, make):
    assert longest(case, make) > 1e6
    assert longest(case, make, update_clip=2.0) == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.complex64])
def test_nan_stays_nan_and_infinity_becomes_the_bound(compiled, dtype):
    opt = adabelief(1.0, rectify=True, update_clip=0.5)
    g = jnp.array([np.nan, np.inf, -np.inf, 1.0], dtype)
    updates, _ = (jax.jit(opt.update) if compiled else opt.update)(g, opt.init(jnp.zeros(4, dtype)))
    values = np.real(np.asarray(updates)).astype(np.float32)
    assert np.isnan(values[0])
    np.testing.assert_allclose(values[1:], [-5.0, 5.0, -1.0], rtol=1e-2)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_bound_that_nothing_reaches_changes_no_bit(compiled):
    free, far = adabelief(0.1, weight_decay=0.1), adabelief(0.1, weight_decay=0.1, update_clip=1e38)
    params = jnp.linspace(-1, 1, 99)
    a, b, p, q = free.init(params), far.init(params), params, params
    for seed in range(20):
        g = jax.random.normal(jax.random.key(seed), 99)
        for opt in (free, far):
            update = jax.jit(opt.update) if compiled else opt.update
            if opt is free:
                updates, a = update(g, a, p)
                p = optax.apply_updates(p, updates)
            else:
                updates, b = update(g, b, q)
                q = optax.apply_updates(q, updates)
    np.testing.assert_array_equal(p, q)


def program(**options):
    opt = adabelief(0.1, **options)
    return str(jax.make_jaxpr(opt.update)(jnp.ones(3), opt.init(jnp.ones(3))))


def test_none_is_no_operation():
    assert "clamp" not in program()
    assert "clamp" in program(update_clip=1.0)


def test_an_injected_bound():
    opt = optax.inject_hyperparams(adabelief)(1.0, update_clip=optax.piecewise_constant_schedule(0.1, {1: 0.5}))
    state = opt.init(jnp.zeros(2))
    g = jnp.array([1.0, -1.0])
    found = []
    for _ in range(2):
        updates, state = jax.jit(opt.update)(g, state)
        found.append(float(jnp.abs(updates).max()))
    k = [1 / (1 - 0.9), 1 / (1 - 0.9**2)]
    np.testing.assert_allclose(found, [k[0] * 0.1, k[1] * 0.05], rtol=1e-6)
    assert "update_clip" not in optax.inject_hyperparams(adabelief)(1.0).init(jnp.zeros(2)).hyperparams


def test_a_traced_bound_has_derivatives():
    """By the bound it is that of -lr·k·bound where it bites, and 0 elsewhere."""

    def update(bound, g):
        opt = adabelief(1.0, rectify=True, update_clip=bound)
        return opt.update(g, opt.init(g))[0]

    g = jnp.array([100.0, -100.0, 1.0])
    for jacobian in (jax.jacfwd, jax.jacrev):
        by_bound, by_g = jax.jit(jacobian(update, (0, 1)))(jnp.float32(0.5), g)
        np.testing.assert_allclose(by_bound, [-10.0, 10.0, 0.0], rtol=1e-6)
        np.testing.assert_allclose(by_g, np.diag([0.0, 0.0, -1.0]), rtol=1e-6)


def test_hyperparameters_of_a_snapshot_make_it():
    opt = optimizer_of(Hyperparameters(lr=1.0, update_clip=0.01))
    updates, _ = opt.update(jnp.ones(2), opt.init(jnp.ones(2)))
    np.testing.assert_allclose(updates, -0.1, rtol=1e-6)
