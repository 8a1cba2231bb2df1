"""JAX's transformations: jit, scan, cond, vmap, grad; donated buffers and memory."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adabelief_core import AdaBelief
from adabelief_core.parity import compare
from adabelief_jax import adabelief, scale_by_belief

EVERYTHING = {"weight_decay": 0.1, "rectify": True, "amsgrad": True, "nesterov": True}
COMPENSATED = {**EVERYTHING, "kahan_sum": True}


def normals(seed, shape=(257,), dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def core(steps, lr=0.01, **options):
    """The core's parameters after steps with `normals(1)`, `normals(2)`, …"""
    params = {"w": np.array(normals(0))}
    optimizer = AdaBelief(params, lr, **options)
    for step in range(1, steps + 1):
        optimizer.step({"w": np.asarray(normals(step))})
    return params["w"]


def scanned(opt, steps, params):
    grads = jnp.stack([normals(step) for step in range(1, steps + 1)])

    def body(carry, g):
        params, state = carry
        updates, state = opt.update(g, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(body, (params, opt.init(params)), grads)[0]


@pytest.mark.parametrize("options", [{}, COMPENSATED])
def test_scan_takes_the_cores_steps(options):
    """With `init` inside, too: the loop carries the step count, and so hides its value from XLA."""
    params, state = jax.jit(lambda p: scanned(adabelief(0.01, **options), 20, p))(normals(0))
    assert compare(np.asarray(params), core(20, **options)).count == 0
    assert int(state[0].count) == 20


def test_a_step_count_that_xla_knows():
    """Where `init` and `update` are traced together, without a loop, XLA folds the step count.

    It may then contract a×b + c, which rounds once where the rule rounds twice: a few ulps of difference.
    """

    @jax.jit
    def first(p, g):
        opt = adabelief(0.01)
        return optax.apply_updates(p, opt.update(g, opt.init(p), p)[0])

    assert compare(np.asarray(first(normals(0) + 10, normals(1))), np.asarray(first_step(normals(0) + 10))).ulps <= 2


def first_step(p):
    opt = adabelief(0.01)
    return optax.apply_updates(p, opt.update(normals(1), opt.init(p), p)[0])


@pytest.mark.parametrize("options", [{}, COMPENSATED])
def test_one_compilation(options):
    opt = adabelief(optax.constant_schedule(0.01), **options)
    traces = []

    @jax.jit
    def step(params, state, grads):
        traces.append(1)
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = {"w": normals(0), "h": normals(0, dtype=jnp.bfloat16), "c": normals(0) + 1j * normals(1)}
    state = opt.init(params)
    types = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), (params, state))
    for _ in range(8):
        params, state = step(params, state, params)
    assert len(traces) == 1
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), (params, state)) == types


def test_cond_and_while():
    opt = adabelief(0.01, **EVERYTHING)
    p, g = normals(0), normals(1)
    state = opt.init(p)
    updates, after = jax.jit(
        lambda go: jax.lax.cond(go, lambda: opt.update(g, state, p), lambda: (jnp.zeros_like(g), state))
    )(True)
    assert int(after[0].count) == 1
    assert bool(jnp.any(updates != 0))


def test_eval_shape():
    opt = adabelief(0.01, **EVERYTHING)
    abstract = jax.eval_shape(opt.init, jax.ShapeDtypeStruct((3,), jnp.bfloat16))
    concrete = opt.init(jnp.ones(3, jnp.bfloat16))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), abstract) == jax.tree.map(lambda x: (x.shape, x.dtype), concrete)


def test_an_ensemble_of_learning_rates():
    rates = jnp.float32([0.1, 0.01, 0.001])
    grads = normals(1, (3, 257))
    params = jnp.broadcast_to(normals(0), (3, 257))

    def two_steps(lr, p, g):
        opt = adabelief(lr, weight_decay=0.1)
        state = opt.init(p)
        for _ in range(2):
            updates, state = opt.update(g, state, p)
            p = optax.apply_updates(p, updates)
        return p

    together = jax.vmap(two_steps)(rates, params, grads)
    for lr, p, g, result in zip(rates, params, grads, together, strict=True):
        assert compare(np.asarray(result), np.asarray(two_steps(float(lr), p, g))).count == 0


def test_an_ensemble_of_states():
    opt = adabelief(0.01)
    params = normals(0, (3, 5))
    state = jax.vmap(opt.init)(params)
    assert state[0].count.shape == (3,)
    updates, state = jax.jit(jax.vmap(opt.update))(params, state, params)
    alone, _ = opt.update(params[1], opt.init(params[1]))
    assert compare(np.asarray(updates[1]), np.asarray(alone)).count == 0


HYPER = {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "eps": 1e-8, "eps_root": 1e-8, "weight_decay": 0.1}


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("options", [{}, {"rectify": True, "degenerated_to_sgd": False}, EVERYTHING])
def test_meta_gradients(options, wide):
    """Finite from step 1 on, through the switch of rectification, and what differences say they are."""
    options = {name: x for name, x in options.items() if name != "weight_decay"}
    target = jnp.float32([1.0, -0.5, 0.25])

    def loss(hyper, p, steps):
        opt = adabelief(**hyper, **options)

        def body(carry, _):
            p, state = carry
            updates, state = opt.update(p**3 - target.astype(p.dtype), state, p)
            return (optax.apply_updates(p, updates), state), None

        (p, _), _ = jax.lax.scan(body, (p, opt.init(p)), length=steps)
        return jnp.sum(p**2)

    with jax.enable_x64(wide):
        dtype = jnp.float64 if wide else jnp.float32
        hyper = {name: jnp.asarray(x, dtype) for name, x in HYPER.items()}
        p = jnp.array([0.5, 1.5, -1.0], dtype)
        for steps in (1, 12):
            slopes = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)(hyper, p, steps)
            assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(slopes))
        if not wide:
            return
        value = jax.jit(loss, static_argnums=2)
        for name, step in (("learning_rate", 1e-6), ("b1", 1e-6), ("b2", 1e-6), ("weight_decay", 1e-6)):
            high, low = (value(hyper | {name: hyper[name] + h}, p, 12) for h in (step, -step))
            assert float(slopes[0][name]) == pytest.approx(float((high - low) / (2 * step)), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("options", [{}, {"rectify": True}, {"amsgrad": True, "nesterov": True}])
def test_gradients_through_zero(options):
    """A gradient of exactly zero: √s stands at √ε_root, and everything stays finite."""
    opt = scale_by_belief(**options)
    slope = jax.grad(lambda g: opt.update(g, opt.init(jnp.zeros(2)))[0].sum())(jnp.zeros(2))
    assert bool(jnp.isfinite(slope).all())


def compiled_step(opt, params):
    def step(params, state, grads):
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1)).lower(params, opt.init(params), params).compile()


@pytest.mark.parametrize(
    ("options", "arrays"),
    [
        ({}, 0),
        ({"weight_decay": 0.1}, 0),
        (EVERYTHING, 0),
        # The gradient with its decay, which m and s both read.
        ({"weight_decay": 0.1, "weight_decouple": False}, 1),
        # The parameter and its compensation are each made of both, and XLA on a CPU writes one after the other.
        ({"kahan_sum": True}, 1),
    ],
)
def test_donated_buffers_leave_no_temporaries(options, arrays):
    """XLA must not copy s to compute it twice, as it does for Optax's own: 4 bytes a parameter, and the time."""
    params = jnp.ones(300_000)
    ours, theirs = (
        compiled_step(opt, params).memory_analysis().temp_size_in_bytes // params.nbytes
        for opt in (adabelief(0.01, **options), optax.adabelief(0.01))
    )
    assert ours == arrays
    assert theirs == 1


def test_donated_buffers_are_distinct():
    opt = adabelief(optax.constant_schedule(0.01), amsgrad=True)
    params = jnp.ones(3)
    state = opt.init(params)
    _, state = compiled_step(opt, params)(params, state, jnp.ones(3))
    assert int(state[0].count) == int(state[1].count) == 1


def test_purity():
    opt = adabelief(0.01, **EVERYTHING)
    p, g = normals(0), normals(1)
    state = opt.init(p)
    first, second = (opt.update(g, state, p) for _ in range(2))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert compare(np.atleast_1d(np.asarray(a, np.float32)), np.atleast_1d(np.asarray(b, np.float32))).count == 0
    assert int(state[0].count) == 0


@pytest.mark.parametrize("gradient", [0.0, 0.3])
def test_the_derivative_of_a_step_is_optaxs_also_where_the_moment_is_zero(gradient):
    with jax.enable_x64(True):
        params = jnp.ones(())

        def step(opt, g):
            return opt.update(g, opt.init(params))[0]

        options = {"eps": 1e-3, "eps_root": 1e-4}
        ours, theirs = (
            float(jax.grad(lambda g, opt=opt: step(opt, g))(gradient))
            for opt in (adabelief(0.1, **options), optax.adabelief(0.1, **options))
        )
        assert ours == pytest.approx(theirs, rel=1e-12)
        assert ours != 0
