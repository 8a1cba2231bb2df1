"""Beside Optax's own AdaBelief: where the two agree, and each known difference with its reason."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adabelief_core import Hyperparameters, step_scalars
from adabelief_jax import ScaleByBeliefState, adabelief, scale_by_belief

SHAPES = {"w": (5, 3), "b": ()}


def normals(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.standard_normal(shape), dtype) for name, shape in SHAPES.items()}


def run(opt, steps, dtype=np.float64, params=None):
    """The parameters after as many steps, all in one compiled scan."""
    params = normals(0, dtype) if params is None else params
    stream = [normals(step, dtype) for step in range(1, steps + 1)]
    grads = jax.tree.map(lambda *xs: jnp.stack(xs), *stream)

    def body(carry, g):
        params, state = carry
        updates, state = opt.update(g, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda params, grads: jax.lax.scan(body, (params, opt.init(params)), grads)[0])(params, grads)


def assert_close(ours, theirs, tolerance):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nesterov": True},
        {"b1": 0.5, "b2": 0.9, "eps": 1e-8, "eps_root": 1e-12},
        {"b2": 0.9999, "eps": 1e-3, "eps_root": 0.0, "nesterov": True},
        {"b1": 0.0},
    ],
)
def test_the_same_steps_in_float64(options):
    with jax.enable_x64(True):
        rate = optax.cosine_decay_schedule(0.01, 500)
        assert_close(run(adabelief(rate, **options), 1000), run(optax.adabelief(rate, **options), 1000), 1e-12)
        theirs = optax.chain(optax.scale_by_belief(**options), optax.scale(-0.01))
        assert_close(run(optax.chain(scale_by_belief(**options), optax.scale(-0.01)), 1000), run(theirs, 1000), 1e-12)


MASK = {"w": True, "b": False}


@pytest.mark.parametrize("mask", [None, MASK, lambda tree: jax.tree.map(lambda x: x.ndim > 0, tree)])
def test_decoupled_decay_is_the_chain(mask):
    with jax.enable_x64(True):
        decayed = optax.add_decayed_weights(0.1, mask)
        chain = optax.chain(optax.scale_by_belief(), decayed, optax.scale_by_learning_rate(0.01))
        ours = adabelief(0.01, weight_decay=0.1, weight_decay_mask=mask)
        assert_close(run(ours, 1000)[0], run(chain, 1000)[0], 1e-12)


@pytest.mark.parametrize("mask", [None, MASK])
def test_coupled_decay_is_the_chain(mask):
    with jax.enable_x64(True):
        chain = optax.chain(optax.add_decayed_weights(0.1, mask), optax.adabelief(0.01))
        ours = adabelief(0.01, weight_decay=0.1, weight_decay_mask=mask, weight_decouple=False)
        assert_close(run(ours, 1000)[0], run(chain, 1000)[0], 1e-12)


@pytest.mark.parametrize("mask", [None, MASK])
def test_fixed_decay_is_the_chain(mask):
    with jax.enable_x64(True):
        chain = optax.chain(optax.adabelief(0.01), optax.add_decayed_weights(-0.001, mask))
        ours = adabelief(0.01, weight_decay=0.001, weight_decay_mask=mask, fixed_decay=True)
        assert_close(run(ours, 1000)[0], run(chain, 1000)[0], 1e-12)


def test_a_state_of_optax_carries_on():
    with jax.enable_x64(True):
        schedule = optax.linear_schedule(0.1, 0.0, 30)
        theirs, ours = optax.adabelief(schedule), adabelief(schedule)
        params, (belief, rate) = run(theirs, 10)
        state = (ScaleByBeliefState(*belief), rate)
        assert jax.tree.structure(state) == jax.tree.structure(ours.init(params))
        g = normals(77)
        assert_close(ours.update(g, state)[0], theirs.update(g, (belief, rate))[0], 1e-12)
        assert [x.shape for x in jax.tree.leaves((belief, rate))] == [x.shape for x in jax.tree.leaves(state)]


def test_no_eps_root_is_eps():
    with jax.enable_x64(True):
        assert_close(
            run(adabelief(0.1, eps=1e-3, eps_root=None), 20), run(adabelief(0.1, eps=1e-3, eps_root=1e-3), 20), 0
        )


# Known differences


def test_float16_trains_where_optax_gives_nan():
    # Optax keeps the moments in float16, where 1e-16 is 0: 0/0 at a gradient of zero.
    params = {"w": jnp.ones(3, jnp.float16)}
    grads = {"w": jnp.zeros(3, jnp.float16)}
    for opt, finite in ((optax.adabelief(0.1), False), (adabelief(0.1), True)):
        updates, _ = opt.update(grads, opt.init(params))
        assert bool(jnp.isfinite(updates["w"]).all()) is finite


def test_bfloat16_forgets_where_optax_cannot():
    # bfloat16(0.999) is 1: Optax's second moment, in bfloat16, never shrinks.
    params = {"w": jnp.ones((), jnp.bfloat16)}

    def second_moment(opt, name):
        state = opt.init(params)
        _, state = opt.update({"w": jnp.full((), 64, jnp.bfloat16)}, state)
        first = optax.tree_utils.tree_get(state, name)["w"]
        for _ in range(200):
            _, state = opt.update({"w": jnp.zeros((), jnp.bfloat16)}, state)
        return float(first), float(optax.tree_utils.tree_get(state, name)["w"])

    theirs, ours = (second_moment(opt, "nu") for opt in (optax.scale_by_belief(), scale_by_belief()))
    assert theirs[1] >= theirs[0]
    assert ours[1] < ours[0]


def test_float32_bias_correction():
    # Optax takes 1 - β^t in float32; at step 1 and β2 = 0.999999 its √(1 - β2) is off by 0.7 %.
    params, grads = jnp.ones(()), jnp.float32(0.5)
    exact = 0.05 / (np.sqrt((1 - 0.999999) * 0.45**2 + 1e-16) / np.sqrt(1 - 0.999999) + 1e-16) / 0.1
    errors = []
    for opt in (optax.scale_by_belief(b2=0.999999), scale_by_belief(b2=0.999999)):
        update, _ = opt.update(grads, opt.init(params))
        errors.append(abs(float(update) / exact - 1))
    assert errors[0] > 5e-3
    assert errors[1] < 5e-7


def test_complex_is_a_pair_of_reals():
    # Optax's nu is |g - m|², real; torch.optim's, and this rule's, has one for each part.
    z = jnp.array([3.0 - 4.0j], jnp.complex64)
    opt = scale_by_belief()
    updates, state = opt.update(z, opt.init(z))
    parts = [opt.update(x, opt.init(x))[0] for x in (z.real, z.imag)]
    assert updates.dtype == state.nu.dtype == jnp.complex64
    assert (updates.real, updates.imag) == (parts[0], parts[1])
    theirs = optax.scale_by_belief()
    assert not np.allclose(updates, theirs.update(z, theirs.init(z))[0])


def test_the_scalars_are_right_at_any_step():
    # k and c by themselves: float64 in the core, against 60 digits in its own tests.
    for t in (1, 5, 6, 999, 2**24 + 1, 2**31 - 1):
        state = ScaleByBeliefState(jnp.int32(t - 1), jnp.float32(1.0), jnp.float32(4.0))
        updates, new = jax.jit(scale_by_belief(eps=0.0).update)(jnp.float32(1.0), state)
        k, c, *_ = step_scalars(np.float64(t), Hyperparameters())
        assert float(updates) == pytest.approx(k * float(new.mu) / (np.sqrt(float(new.nu)) * c), rel=3e-7)
        assert int(new.count) == t
    saturated = jax.jit(scale_by_belief().update)(jnp.float32(1.0), new)[1]
    assert int(saturated.count) == 2**31 - 1
