"""Moments in dtypes of the user's choice, and the powers of the betas from their table of bytes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adabelief_core import LAST_STEP, Hyperparameters, coefficients, plain_product, tables, update
from adabelief_core._scalars import power_and_complement
from adabelief_core.parity import compare
from adabelief_jax import adabelief, scale_by_belief
from adabelief_jax._powers import powers


def normals(seed, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(101).astype(dtype)


@pytest.mark.parametrize(
    ("mu_dtype", "nu_dtype", "dtype"),
    [
        ("bfloat16", None, np.float32),
        (None, jnp.bfloat16, np.float32),
        (np.float16, jnp.bfloat16, jnp.bfloat16),
        (jnp.float32, "float32", jnp.float16),
    ],
)
def test_a_moment_is_rounded_once_when_it_is_stored(mu_dtype, nu_dtype, dtype):
    """The core's rule in float32, with each moment rounded between two steps."""
    options = {"weight_decay": 0.1, "amsgrad": True, "nesterov": True}
    h = Hyperparameters(lr=0.01, betas=(0.9, 0.95), **options)
    kept = [np.dtype(x or np.float32) for x in (mu_dtype, nu_dtype, nu_dtype)]
    opt = adabelief(0.01, 0.9, 0.95, mu_dtype=mu_dtype, nu_dtype=nu_dtype, **options)
    ours = jnp.asarray(normals(0), dtype)
    state = opt.init(ours)
    p, moments = np.asarray(ours), [np.zeros(101, x) for x in kept]

    @jax.jit
    def step(p, state, g):
        updates, state = opt.update(g, state, p)
        return optax.apply_updates(p, updates), state

    for t in range(1, 7):
        g = normals(t, np.dtype(dtype))
        wide = (x.astype(np.float32) for x in (p, g, *moments))
        delta, *new = update(*wide, coefficients(h, t, np.float32), h.variant)
        moments = [x.astype(narrow) for x, narrow in zip(new, kept, strict=True)]
        p = (p.astype(np.float32) + delta.astype(g.dtype).astype(np.float32)).astype(p.dtype)
        ours, state = step(ours, state, g)
        for mine, theirs in zip((ours, *state[0][1:4]), (p, *moments), strict=True):
            assert compare(np.asarray(mine), theirs).count == 0, t


@pytest.mark.parametrize("make", [lambda **options: adabelief(0.1, **options), scale_by_belief])
def test_dtypes_stay(make):
    """No drift of a dtype, and so no second compilation; also for complex and mixed trees."""
    params = {"h": jnp.ones(3, jnp.bfloat16), "w": jnp.ones(3), "z": jnp.ones(3, jnp.complex64)}
    opt = make(nu_dtype="float32", mu_dtype="float32")
    state = opt.init(params)
    types = jax.tree.map(lambda x: (x.dtype, x.weak_type), state)
    update = jax.jit(opt.update)
    for _ in range(3):
        updates, state = update(params, state, params)
    assert update._cache_size() == 1
    assert jax.tree.map(lambda x: (x.dtype, x.weak_type), state) == types
    assert jax.tree.map(jnp.result_type, updates) == jax.tree.map(jnp.result_type, params)


@pytest.mark.parametrize("static", [(), ("mu_dtype", "nu_dtype")])
def test_dtypes_beside_injected_numbers(static):
    """A type can be called, and `inject_hyperparams` would take it for a schedule: name it static, or give a string."""
    mu, nu = (jnp.bfloat16, np.float32) if static else ("bfloat16", "float32")
    opt = optax.inject_hyperparams(adabelief, static_args=static)(0.1, mu_dtype=mu, nu_dtype=nu)
    _, state = jax.jit(opt.update)(jnp.ones(3), opt.init(jnp.ones(3)))
    assert optax.tree_utils.tree_get(state, "mu").dtype == jnp.bfloat16
    assert optax.tree_utils.tree_get(state, "nu").dtype == jnp.float32


def test_wider_moments_widen_the_arithmetic():
    with jax.enable_x64(True):
        params = jnp.asarray(normals(0))
        wide, narrow = adabelief(0.1, mu_dtype="float64", nu_dtype="float64"), adabelief(0.1)
        updates, state = wide.update(jnp.asarray(normals(1)), wide.init(params))
        exact, expected = narrow.update(jnp.asarray(normals(1, np.float64)), narrow.init(params.astype(jnp.float64)))
        assert updates.dtype == jnp.float32
        assert state[0].mu.dtype == jnp.float64
        np.testing.assert_allclose(np.asarray(state[0].nu), np.asarray(expected[0].nu), rtol=1e-6)
        np.testing.assert_allclose(np.asarray(updates), np.asarray(exact), rtol=1e-6)


@pytest.mark.parametrize("name", ["mu_dtype", "nu_dtype"])
@pytest.mark.parametrize("value", ["int32", jnp.complex64, "float7", 3.0, jnp.float8_e4m3fn])
def test_dtypes_that_are_refused(name, value):
    for make in (lambda **options: adabelief(0.1, **options), scale_by_belief):
        with pytest.raises(TypeError, match=re.escape(f"Invalid {name}: {value!r} (expected float16")):
            make(**{name: value})


def test_no_complex_dtype_is_that_narrow():
    with pytest.raises(TypeError, match=re.escape("Invalid nu_dtype: bfloat16 (there are complex64 leaves")):
        adabelief(0.1, nu_dtype="bfloat16").init(jnp.ones(3, jnp.complex64))


def test_a_state_of_another_dtype_is_refused():
    state = adabelief(0.1).init(jnp.ones(3))
    with pytest.raises(ValueError, match=re.escape("Invalid state.mu: float32[3] (expected bfloat16[3], mu_dtype=")):
        adabelief(0.1, mu_dtype="bfloat16").update(jnp.ones(3), state)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 1 - 2.0**-40), (0.5, 0.0), (0.987654321, 0.3)])
def test_the_table_of_bytes_has_the_cores_bits(betas):
    """The core walks along the bits of t; here they are looked up eight at a time."""
    rng = np.random.default_rng(0)
    steps = np.unique([*2 ** np.arange(31), *2 ** np.arange(1, 32) - 1, *rng.integers(1, LAST_STEP, 500), *range(40)])
    steps = steps[(steps > 0) & (steps <= LAST_STEP)].astype(np.int32)
    with jax.enable_x64(True):
        walk = jax.jit(jax.vmap(lambda t, zero: powers(t, betas, lambda x: x + zero), in_axes=(0, None)))
        ours = walk(steps, -0.0)
    for pair, table in zip(ours, tables(betas)[:2], strict=True):
        theirs = np.transpose([power_and_complement(np.float64(t), table, np, plain_product) for t in steps])
        # XLA flushes a power below 2^-1022, which no scalar feels.
        theirs[0, theirs[0] < np.finfo(np.float64).smallest_normal] = 0
        assert compare(np.asarray(pair), theirs).count == 0
