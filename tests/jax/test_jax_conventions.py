"""Optax's conventions: wrappers, state, dtypes, masks, schedules."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax_trees import assert_same

from adabelief_core import Hyperparameters, coefficients
from adabelief_jax import ScaleByBeliefState, adabelief, scale_by_belief
from adabelief_jax._hyperparameters import step_coefficients, validated

W = {"w": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array(0.25)}
G = {"w": jnp.array([0.5, 0.25, -4.0]), "b": jnp.array(-1.0)}


def run(opt, steps=8, params=W, grads=G, compiled=False):
    """Parameters and state after steps with these gradients, which shrink a little each time."""

    def step(params, state, k):
        updates, state = opt.update(jax.tree.map(lambda g: g * 0.9**k, grads), state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step) if compiled else step
    state = opt.init(params)
    for k in range(steps):
        params, state = step(params, state, k)
    return params, state


# State


@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_state_is_named_as_optax_names_it(amsgrad):
    opt = adabelief(0.1, amsgrad=amsgrad)
    _, state = run(opt, 2)
    get = optax.tree_utils.tree_get
    assert int(get(state, "count")) == 2
    for name in ("mu", "nu") + ("nu_max",) * amsgrad:
        assert get(state, name).keys() == W.keys()
    assert isinstance(state[0], ScaleByBeliefState)
    assert state[1] == optax.EmptyState()
    assert (state[0].nu_max is None) is not amsgrad
    halved = optax.tree_utils.tree_map_params(opt, lambda x: x / 2, state)
    assert_same(halved[0].mu, jax.tree.map(lambda x: x / 2, state[0].mu))
    assert_same(halved[0].count, state[0].count)
    replaced = optax.tree_utils.tree_set(state, count=jnp.int32(7))
    assert int(replaced[0].count) == 7


def test_nu_max_waits_while_amsgrad_is_off():
    _, state = run(scale_by_belief(amsgrad=True), 2)
    _, after = scale_by_belief().update(G, state)
    assert_same(after.nu_max, state.nu_max)


def test_a_schedule_counts_as_optax_does():
    rates = []
    opt = adabelief(lambda count: rates.append(count) or 0.1 / (1 + count))
    _, state = run(opt, 3, compiled=False)
    assert [int(count) for count in rates] == [0, 1, 2]
    assert isinstance(state[1], optax.ScaleByScheduleState)
    assert int(state[1].count) == 3
    assert_same(run(adabelief(optax.constant_schedule(0.1)))[0], run(adabelief(0.1))[0])


@pytest.mark.parametrize("params", [{}, (), None, {"empty": jnp.zeros((0, 3))}])
def test_trees_without_elements(params):
    opt = adabelief(0.1, weight_decay=0.1)
    updates, _ = opt.update(params, opt.init(params), params if params is not None else ())
    assert jax.tree.structure(updates) == jax.tree.structure(params)


# Dtypes


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.complex64])
@pytest.mark.parametrize("make", [lambda: adabelief(0.1), scale_by_belief])
def test_updates_have_the_gradients_dtype(dtype, make):
    opt = make()
    params = jnp.ones(3, dtype)
    updates, state = opt.update(params, opt.init(params), params)
    belief = state if isinstance(state, ScaleByBeliefState) else state[0]
    wide = jnp.promote_types(dtype, jnp.float32)
    assert (updates.dtype, belief.mu.dtype, belief.nu.dtype) == (dtype, wide, wide)
    assert (belief.count.dtype, belief.count.weak_type, updates.weak_type) == (jnp.int32, False, False)


def test_half_gradients_of_float32_parameters():
    grads = jax.tree.map(lambda g: g.astype(jnp.bfloat16), G)
    opt = adabelief(0.1)
    updates, state = opt.update(grads, opt.init(W), W)
    exact, same = opt.update(jax.tree.map(lambda g: g.astype(jnp.float32), grads), opt.init(W), W)
    assert_same(state, same)
    assert_same(updates, jax.tree.map(lambda u: u.astype(jnp.bfloat16), exact))


def test_float32_gradients_of_half_parameters():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), W)
    opt = adabelief(0.1, weight_decay=0.1)
    updates, state = opt.update(G, opt.init(params), params)
    assert {x.dtype for x in jax.tree.leaves((updates, state[0].mu))} == {np.dtype(np.float32)}


def test_narrow_gradients_of_float64_parameters():
    with jax.enable_x64(True):
        params = jax.tree.map(lambda p: p.astype(jnp.float64), W)
        opt = adabelief(0.1)
        updates, state = opt.update(G, opt.init(params))
        assert {x.dtype for x in jax.tree.leaves(updates)} == {np.dtype(np.float32)}
        assert {x.dtype for x in jax.tree.leaves(state[0].mu)} == {np.dtype(np.float64)}


def test_python_numbers_are_leaves():
    opt = adabelief(0.1)
    updates, state = opt.update(0.5, opt.init(1.0), 1.0)
    assert updates.dtype == jnp.float32
    assert state[0].mu.weak_type is False


def test_strict_promotion_and_leaks():
    with jax.numpy_dtype_promotion("strict"), jax.check_tracer_leaks():
        opt = adabelief(0.1, weight_decay=0.1, rectify=True, nesterov=True, amsgrad=True)
        params = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(2), "c": jnp.ones(2, jnp.complex64)}
        updates, state = jax.jit(opt.update)(params, opt.init(params), params)
        assert jax.tree.map(lambda u: u.dtype, updates) == jax.tree.map(lambda p: p.dtype, params)
        assert int(state[0].count) == 1


# Masks, Nones


def test_none_stays():
    params, grads = W | {"n": None}, G | {"n": None}
    opt = adabelief(0.1, weight_decay=0.1)
    new, state = run(opt, params=params, grads=grads)
    assert new["n"] is state[0].mu["n"] is None
    assert_same({name: new[name] for name in W}, run(opt)[0])
    # Where a gradient is None, the parameter given for the decay may be anything.
    updates, _ = opt.update(grads, opt.init(params), W | {"n": jnp.arange(3)})
    assert updates["n"] is None


@pytest.mark.parametrize("partition", [optax.partition, optax.multi_transform], ids=["partition", "multi_transform"])
def test_masked_and_partition(partition):
    keep = {"w": True, "b": False}
    new, state = run(optax.masked(adabelief(0.1, weight_decay=0.1), keep))
    assert_same(new["w"], run(adabelief(0.1, weight_decay=0.1))[0]["w"])
    assert isinstance(state.inner_state[0].mu["b"], optax.MaskedNode)
    parts = partition({"a": adabelief(0.1, weight_decay=0.1), "s": optax.sgd(0.1)}, {"w": "a", "b": "s"})
    both, _ = run(parts)
    assert_same(both["w"], new["w"])
    assert_same(both["b"], run(optax.sgd(0.1))[0]["b"])
    # Integers, which the rule refuses, can be set aside.
    mixed = {"w": W["w"], "n": jnp.arange(3)}
    opt = optax.masked(adabelief(0.1), {"w": True, "n": False})
    updates, _ = opt.update(mixed, opt.init(mixed))
    assert_same(updates["n"], mixed["n"])


class Module:
    """A tree that can be called, as some libraries' modules."""

    def __init__(self, w, b):
        self.w, self.b = w, b

    def __call__(self):
        raise AssertionError("a tree of bools is no function")


jax.tree_util.register_pytree_node(Module, lambda m: ((m.w, m.b), None), lambda _, leaves: Module(*leaves))


@pytest.mark.parametrize("options", [{}, {"weight_decouple": False}, {"fixed_decay": True}])
def test_weight_decay_mask(options):
    decayed, plain = run(adabelief(0.1, weight_decay=0.1, **options))[0], run(adabelief(0.1))[0]
    assert not np.array_equal(decayed["w"], plain["w"])
    masks = [
        {"w": True, "b": False},
        lambda tree: jax.tree.map(lambda x: x.ndim > 0, tree),
        {"w": np.bool_(1), "b": False},
    ]
    for mask in masks:
        new, _ = run(adabelief(0.1, weight_decay=0.1, weight_decay_mask=mask, **options))
        assert_same(new, {"w": decayed["w"], "b": plain["b"]})
    # A prefix of the tree.
    for mask, expected in ((True, decayed), (False, plain)):
        assert_same(run(adabelief(0.1, weight_decay=0.1, weight_decay_mask=mask, **options))[0], expected)
    opt = adabelief(0.1, weight_decay=0.1, weight_decay_mask=Module(True, False), **options)
    new, _ = run(opt, params=Module(**W), grads=Module(**G))
    assert_same({"w": new.w, "b": new.b}, {"w": decayed["w"], "b": plain["b"]})


def test_no_decay_needs_no_parameters():
    opt = adabelief(0.1, weight_decay=0.0, weight_decay_mask={"w": True, "b": False})
    assert_same(opt.update(G, opt.init(W))[0], adabelief(0.1).update(G, adabelief(0.1).init(W))[0])


# Wrappers


def test_chains():
    new, _ = run(adabelief(0.125))
    for chain in (
        optax.chain(scale_by_belief(), optax.scale_by_learning_rate(0.125)),
        optax.named_chain(("belief", scale_by_belief()), ("rate", optax.scale(-0.125))),
        optax.chain(optax.clip_by_global_norm(1e9), adabelief(0.125)),
        optax.chain(adabelief(0.125), optax.identity()),
        optax.flatten(adabelief(0.125)),
        optax.apply_if_finite(adabelief(0.125), 3),
    ):
        # A factor of 2^-3 is exact, so the chain's own rounding is none.
        assert_same(run(chain)[0], new)


def test_apply_if_finite_skips():
    opt = optax.apply_if_finite(adabelief(0.1), 3)
    state = opt.init(W)
    updates, after = jax.jit(opt.update)(jax.tree.map(lambda g: g * jnp.nan, G), state, W)
    assert_same(after.inner_state, state.inner_state)
    assert_same(updates, jax.tree.map(jnp.zeros_like, W))


@pytest.mark.parametrize("compiled", [False, True])
def test_multi_steps(compiled):
    opt = optax.MultiSteps(adabelief(0.1, weight_decay=0.1), every_k_schedule=2)
    params, state = W, opt.init(W)
    update = jax.jit(opt.update) if compiled else opt.update
    for _ in range(6):
        updates, state = update(G, state, params)
        params = optax.apply_updates(params, updates)
    inner = adabelief(0.1, weight_decay=0.1)
    expected, inner_state = W, inner.init(W)
    for _ in range(3):
        updates, inner_state = inner.update(G, inner_state, expected)
        expected = optax.apply_updates(expected, updates)
    assert_same(params, expected)


def test_extra_arguments_pass_by():
    opt = adabelief(0.1)
    assert_same(opt.update(G, opt.init(W), W, value=1.0)[0], opt.update(G, opt.init(W), W)[0])


# Injected hyperparameters


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("rectify", [False, True])
def test_inject_hyperparams(compiled, rectify):
    make = optax.inject_hyperparams(adabelief, static_args="weight_decay_mask")
    mask = {"w": True, "b": False}
    opt = make(0.1, weight_decay=0.01, weight_decay_mask=mask, rectify=rectify, nesterov=True)
    new, state = run(opt, 12, compiled=compiled)
    assert state.hyperparams.keys() == {"learning_rate", "b1", "b2", "eps", "eps_root", "weight_decay"}
    # Each number is a float32 of JAX; the rule with just those numbers takes the same steps.
    exact = {name: float(np.float32(x)) for name, x in state.hyperparams.items()}
    expected, _ = run(adabelief(**exact, weight_decay_mask=mask, rectify=rectify, nesterov=True), 12, compiled=compiled)
    assert_same(new, expected)


def test_inject_a_schedule_and_change_a_number():
    opt = optax.inject_hyperparams(adabelief)(optax.linear_schedule(0.1, 0.0, 4))
    state = opt.init(W)
    rates = []
    for _ in range(3):
        _, state = jax.jit(opt.update)(G, state, W)
        rates.append(float(state.hyperparams["learning_rate"]))
    assert rates == pytest.approx([0.1, 0.075, 0.05])
    state.hyperparams["b1"] = jnp.float32(0.0)
    _, after = jax.jit(opt.update)(G, state, W)
    assert_same(after.inner_state[0].mu, G)


def test_inject_into_bfloat16_says_what_is_wrong():
    # inject_hyperparams takes the parameters' dtype, where 0.999 is 1; hyperparam_dtype is the cure.
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), W)
    with pytest.raises(ValueError, match=r"Invalid b2: 1\.0"):
        optax.inject_hyperparams(adabelief)(0.1).init(params)
    opt = optax.inject_hyperparams(adabelief, hyperparam_dtype=jnp.float32)(0.1)
    new, _ = run(opt, params=params, grads=jax.tree.map(lambda g: g.astype(jnp.bfloat16), G))
    assert bool(jnp.isfinite(new["w"]).all())


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize(("b1", "b2"), [(0.9, 0.999), (0.0, 0.999999), (0.5, 0.5), (0.99, 0.7)])
def test_traced_betas(b1, b2, rectify):
    """The bound for betas that only a trace knows: one ulp of float32 in each scalar.

    Their powers β^(2^i) are squared up in float64, which doubles the error at each i, where the host's table
    is correctly rounded; and ρ_t subtracts two large numbers where β2 is near 1. Both leave 1e-11 at most,
    4,000 times less than half an ulp of float32, so one in thousands may round the other way.
    """
    exact = Hyperparameters(betas=(float(np.float32(b1)), float(np.float32(b2))), rectify=rectify)

    @partial(jax.jit, static_argnums=3)
    def traced(b1, b2, count, dtype):
        h, numbers = validated(b1=b1, b2=b2, eps=0.0, eps_root=0.0, rectify=rectify)
        return step_coefficients(h, numbers, count + 1, dtype, count)

    for t in (1, 2, 5, 6, 7, 10, 100, 1000, 12345, 2**24 + 1, 2**31 - 1):
        for dtype, bound in ((np.float64, 1e-11), (np.float32, np.finfo(np.float32).eps)):
            c = traced(jnp.float32(b1), jnp.float32(b2), jnp.int32(t - 1), dtype)
            expected = coefficients(exact, t, dtype)
            assert bool(c.adaptive) == bool(expected.adaptive)
            for name in ("scale", "belief_scale", "look_ahead"):
                ours, theirs = (float(getattr(x, name)) for x in (c, expected))
                assert abs(ours - theirs) <= bound * abs(theirs), (t, name, ours, theirs)
            for name in ("beta1", "rest1", "beta2", "rest2"):
                assert float(getattr(c, name)) == float(getattr(expected, name))
