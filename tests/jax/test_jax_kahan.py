"""The compensated sum of the parameters, as Optax's conventions have it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adabelief_core import AdaBelief, compensated
from adabelief_core.parity import Problem, check, compare
from adabelief_jax import ScaleByBeliefState, adabelief, scale_by_belief
from adabelief_jax._parity import adapter

JIT = {(mode.name, mode.device): mode for mode in adapter.modes()}["jit", "cpu"]
LEAST = np.finfo(np.float32).smallest_normal


def normals(seed, dtype=jnp.float32, shape=(257,)):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def stepper(opt):
    def step(params, state, grads):
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


@pytest.mark.parametrize(("dtype", "lr"), [(jnp.bfloat16, 1e-3), (jnp.float16, 1e-4)])
def test_half_precision_follows_float32(dtype, lr):
    """Where plain rounding freezes: a parameter of 1 and a small step."""
    grads = normals(1, dtype, (2000, 64)) - dtype(0.5)

    def trajectory(opt, dtype):
        step = stepper(opt)

        def body(carry, g):
            carry = step(*carry, g.astype(dtype))
            return carry, carry[0]

        params = jnp.ones(64, dtype)
        (_, state), trail = jax.jit(lambda: jax.lax.scan(body, (params, opt.init(params)), grads))()
        return np.asarray(trail), state[0].kahan_comp

    plain, _ = trajectory(adabelief(lr), dtype)
    exact, _ = trajectory(adabelief(lr), jnp.float32)
    ours, comp = trajectory(adabelief(lr, kahan_sum=True), dtype)
    assert (plain[-1] == 1).mean() > 0.9
    assert (exact[-1] > 1 + 300 * lr).all()
    assert compare(ours, exact.astype(ours.dtype)).ulps <= 1
    assert compare(plain, exact.astype(ours.dtype)).ulps > 10
    # Updates in half precision are rounded on their way, and k makes that good too.
    assert np.abs(ours[-1].astype(np.float64) + comp - exact[-1]).max() <= 2000 * 2.0**-23


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "complex64"])
@pytest.mark.parametrize("lr", [2.0**-7, 2.0**-20])
def test_bits(dtype, lr):
    problem = Problem("", dtype, {"kahan_sum": True}, steps=6, lr=lr, tensors=("scalar", "spread", "nonfinite"))
    assert check(JIT, problem).differing == 0


def test_bits_where_float16_is_subnormal():
    params = {"w": np.asarray(normals(0)).astype(np.float16) * np.float16(2**-16)}
    assert (np.abs(params["w"]) < np.finfo(np.float16).smallest_normal).all()
    opt = adabelief(2.0**-22, kahan_sum=True)
    ours = {"w": jnp.asarray(params["w"])}
    state, step = opt.init(ours), jax.jit(stepper(opt))
    before = params["w"].copy()
    reference = AdaBelief(params, 2.0**-22, kahan_sum=True)
    for seed in range(50):
        # The core's float16 gradient in float32, so that the update is not rounded on its way, as it is not there.
        g = np.asarray(normals(seed)).astype(np.float16)
        reference.step({"w": g})
        ours, state = step(ours, state, {"w": jnp.asarray(g, jnp.float32)})
    assert compare(params["w"], before).count > 0
    assert compare(np.asarray(ours["w"]), params["w"]).count == 0
    assert compare(np.asarray(state[0].kahan_comp["w"]), reference.state["w"].k).count == 0


@pytest.mark.parametrize("of_params", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("of_grads", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_parameters_become_what_the_compensation_foretells(of_params, of_grads):
    """In every pair of dtypes, through `optax.apply_updates` under jit: nothing is lost."""
    params = normals(0, of_params)
    grads = [normals(seed, of_grads) for seed in range(1, 6)]
    opt, wide = adabelief(1e-3, kahan_sum=True), adabelief(1e-3)
    step, direction = jax.jit(stepper(opt)), jax.jit(wide.update)
    state, moments = opt.init(params), wide.init(params)
    for g in grads:
        delta, moments = direction(g.astype(jnp.float32), moments)

        def rounded(dtype):
            return lambda wide: np.asarray(wide).astype(dtype).astype(np.float32)

        old, comp = (np.asarray(x).astype(np.float32) for x in (params, state[0].kahan_comp))
        change, left = compensated(old, np.asarray(delta), comp, stored=rounded(of_params), sent=rounded(of_grads))
        params, state = step(params, state, g)
        assert compare(np.asarray(params), (old + change).astype(of_params)).count == 0
        assert compare(np.asarray(state[0].kahan_comp), left).count == 0


def several(opt, n):
    step = stepper(opt)

    def steps(params, state, grads):
        for g in grads[:n]:
            params, state = step(params, state, g)
        return params, state

    return jax.jit(steps)


def test_several_steps_compiled_together():
    """XLA hands a bfloat16 sum from step to step with more digits than bfloat16 has; the rule must not see them."""
    grads = [normals(seed, jnp.bfloat16) for seed in range(1, 4)]
    opt = adabelief(0.01, kahan_sum=True)
    params = normals(0, jnp.bfloat16)
    together = several(opt, 3)(params, opt.init(params), grads)
    state = opt.init(params)
    for g in grads:
        params, state = several(opt, 1)(params, state, [g])
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves((params, state)), strict=True):
        assert compare(np.asarray(a), np.asarray(b)).count == 0
    wide = jax.jit(lambda p, u: (p + u).astype(jnp.float32))(*grads[:2])
    assert compare(np.asarray(wide), np.asarray(wide.astype(jnp.bfloat16).astype(jnp.float32))).count > 0


@pytest.mark.parametrize(("dtype", "passages"), [(jnp.float32, 0), (jnp.bfloat16, 3), (jnp.float16, 3)])
def test_roundings_pass_through_integers(dtype, passages):
    """On GPUs, XLA drops a cast to half precision and back: p, the update and the new p are each rounded in bits."""
    params = jnp.ones(3, dtype)
    opt = adabelief(0.1, kahan_sum=True)
    text = jax.jit(opt.update).lower(params, opt.init(params), params).as_text()
    assert text.count("bitcast_convert") == 2 * passages


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_derivatives_pass_through_the_rounding(dtype):
    p, g = normals(0, dtype), normals(1, dtype)

    def moved(rate, **options):
        opt = adabelief(rate, eps=1e-8, **options)
        updates, state = opt.update(g, opt.init(p), p)
        comp = state[0].kahan_comp
        return updates.astype(jnp.float32).sum(), comp if comp is None else comp.sum()

    plain, _ = jax.jit(jax.jacrev(moved))(0.1)
    slope, of_comp = jax.jit(jax.jacrev(lambda rate: moved(rate, kahan_sum=True)))(0.1)
    assert float(slope) == pytest.approx(float(plain), rel=1e-6)
    assert float(slope) != 0
    # The compensation is a rounding error, with no slope of its own.
    assert float(of_comp) == 0


def test_an_ensemble():
    opt = adabelief(0.01, kahan_sum=True)
    params, grads = normals(0, jnp.bfloat16, (3, 5)), normals(1, jnp.bfloat16, (3, 5))
    together, state = jax.jit(jax.vmap(stepper(opt)))(params, jax.vmap(opt.init)(params), grads)
    for i in range(3):
        alone, own = jax.jit(stepper(opt))(params[i], opt.init(params[i]), grads[i])
        assert compare(np.asarray(together[i]), np.asarray(alone)).count == 0
        assert compare(np.asarray(state[0].kahan_comp[i]), np.asarray(own[0].kahan_comp)).count == 0


@pytest.mark.parametrize(
    ("dtype", "wide"), [(jnp.bfloat16, "float32"), (jnp.float16, "float32"), (jnp.complex64, "complex64")]
)
def test_the_state(dtype, wide):
    params = {"w": jnp.ones(3, dtype), "n": None}
    opt = adabelief(optax.constant_schedule(0.1), kahan_sum=True)
    state = opt.init(params)
    comp = optax.tree_utils.tree_get(state, "kahan_comp")
    assert (comp["n"], comp["w"].dtype, comp["w"].weak_type) == (None, np.dtype(wide), False)
    assert not comp["w"].any()
    assert optax.tree_utils.tree_get(state, "mu").keys() == params.keys()
    assert ScaleByBeliefState._fields[-1] == "kahan_comp"
    _, after = opt.update(params, state, params)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert after[0].kahan_comp["w"].any()


def test_none_is_off():
    params, grads = normals(0, jnp.bfloat16), normals(1, jnp.bfloat16)
    states = [adabelief(0.1, kahan_sum=value).init(params) for value in (None, False)]
    assert [state[0].kahan_comp for state in states] == [None, None]
    updates = [adabelief(0.1, kahan_sum=value).update(grads, states[0])[0] for value in (None, False)]
    assert compare(*map(np.asarray, updates)).count == 0


def test_the_compensation_waits_while_it_is_off():
    params = normals(0, jnp.bfloat16)
    opt = adabelief(0.1, kahan_sum=True)
    _, state = opt.update(params, opt.init(params), params)
    for other in (adabelief(0.1), scale_by_belief()):
        alone = isinstance(other.init(params), ScaleByBeliefState)
        _, after = other.update(params, state[0] if alone else state)
        assert (after if alone else after[0]).kahan_comp is state[0].kahan_comp


def test_it_needs_the_parameters():
    opt = adabelief(0.1, kahan_sum=True)
    with pytest.raises(ValueError, match="kahan_sum needs the parameters, but `update` was called without `params`"):
        opt.update(jnp.ones(3), opt.init(jnp.ones(3)))


def test_states_that_do_not_fit():
    params = jnp.ones(3)
    opt = adabelief(0.1, kahan_sum=True)
    belief, rate = opt.init(params)
    for comp, message in (
        (None, "Invalid state: kahan_comp is None (expected what `init` gives under kahan_sum=True)"),
        (jnp.ones(2), "Invalid state.kahan_comp: float32[2] (expected float32[3], as state.mu)"),
        (jnp.ones(3, jnp.bfloat16), "Invalid state.kahan_comp: bfloat16[3] (expected float32[3], as state.mu)"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            opt.update(params, (belief._replace(kahan_comp=comp), rate), params)
    with pytest.raises(TypeError, match="kahan_sum"):
        scale_by_belief(kahan_sum=True)


def test_a_subnormal_compensation_may_be_flushed():
    """XLA on a CPU flushes subnormal numbers, here Δ and its sum with k: less than 2 · 2^-126 a step."""
    ours = {"w": normals(0)}
    params = {"w": np.array(ours["w"])}
    # Rectification never divides by the belief at this β2, so that Δ is as small as m.
    opt = adabelief(0.01, b2=0.6, rectify=True, kahan_sum=True)
    state, step = opt.init(ours), jax.jit(stepper(opt))
    reference = AdaBelief(params, 0.01, betas=(0.9, 0.6), rectify=True, kahan_sum=True)
    flushed = 0
    g = {"w": np.asarray(normals(1)) * np.float32(1000 * LEAST)}
    for t in range(1, 13):
        reference.step(g)
        ours, state = step(ours, state, g)
        difference = np.abs(np.asarray(state[0].kahan_comp["w"]).astype(np.float64) - reference.state["w"].k)
        assert (difference < t * 2 * LEAST).all()
        assert compare(np.asarray(ours["w"]), params["w"]).count == 0
        flushed += int((difference > 0).sum())
        g = {"w": np.zeros_like(g["w"])}
    assert flushed
