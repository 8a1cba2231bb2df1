"""Inside what Optax, Flax, Equinox and Orbax put around an optimizer."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax_trees import assert_same
from orbax import checkpoint

from adabelief_jax import adabelief, scale_by_belief

W = {"w": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array(0.25)}
NUMBERS = {
    "learning_rate": 0.125,
    "b1": 0.75,
    "b2": 0.5,
    "eps": 2.0**-4,
    "eps_root": 2.0**-4,
    "weight_decay": 0.25,
    "update_clip": 0.5,
}


def grads(seed, like=W):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.integers(-64, 64, x.shape) / 16 + 1 / 32, x.dtype), like)


def stepper(opt):
    def step(params, state, grads, **extra):
        updates, state = opt.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    return jax.jit(step)


def run(opt, steps=range(8), params=W, state=None):
    state, step = opt.init(params) if state is None else state, stepper(opt)
    for seed in steps:
        params, state = step(params, state, grads(seed, params))
    return params, state


def test_the_comparison_sees_one_ulp():
    with pytest.raises(AssertionError):
        assert_same(W, W | {"b": jnp.nextafter(W["b"], jnp.float32(1))})


# Optax


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_can_be_injected_and_scheduled(name):
    """A number injected as a schedule: at each step it is what a fresh optimizer with that number does."""
    values = [NUMBERS[name], NUMBERS[name] / 2]
    opt = optax.inject_hyperparams(adabelief)(
        **NUMBERS | {name: lambda count: jnp.where(count < 4, *values)}, amsgrad=True
    )
    new, state = run(opt)
    assert state.hyperparams.keys() == NUMBERS.keys()
    assert float(state.hyperparams[name]) == values[1]
    # The powers of these betas are exact in float64: traced ones have their bits, too.
    first, second = (adabelief(**NUMBERS | {name: x}, amsgrad=True) for x in values)
    half, middle = run(first, range(4))
    expected, _ = run(second, range(4, 8), half, middle)
    assert_same(new, expected)
    assert not np.array_equal(new["w"], run(first)[0]["w"])


def test_multi_steps_is_one_large_step():
    """Bit for bit, where the mean of the gradients is exact: multiples of 1/32 and two of them."""
    opt = optax.MultiSteps(adabelief(0.1, weight_decay=0.1, amsgrad=True), every_k_schedule=2)
    new, state = run(opt, range(6))
    inner = adabelief(0.1, weight_decay=0.1, amsgrad=True)
    params, expected, step = W, inner.init(W), stepper(inner)
    for seed in (0, 2, 4):
        mean = jax.tree.map(lambda x, y: (x + y) / 2, grads(seed), grads(seed + 1))
        params, expected = step(params, expected, mean)
    assert_same(new, params)
    assert_same(state.inner_opt_state, expected)


def test_lookahead():
    params = optax.LookaheadParams.init_synced(W)
    opt = optax.lookahead(adabelief(0.125), sync_period=2, slow_step_size=0.5)
    state, fast, inner, slow = opt.init(params), W, adabelief(0.125).init(W), W
    for seed in range(4):
        updates, state = opt.update(grads(seed), state, params)
        params = optax.apply_updates(params, updates)
        fast, inner = stepper(adabelief(0.125))(fast, inner, grads(seed))
        if seed % 2:
            slow = fast = jax.tree.map(lambda s, f: s + 0.5 * (f - s), slow, fast)
        assert_same(state.fast_state, inner)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), params.slow, slow)


def loss(params):
    return sum(jnp.sum((x - 3.0) ** 2) for x in jax.tree.leaves(params))


@pytest.mark.parametrize(
    "opt",
    [
        optax.contrib.schedule_free(adabelief(0.3), 0.3),
        optax.contrib.mechanize(adabelief(0.1)),
        optax.chain(adabelief(0.3), optax.contrib.reduce_on_plateau(patience=20)),
        optax.GradientTransformation(
            *optax.contrib.sam(adabelief(0.3), optax.chain(optax.contrib.normalize(), optax.sgd(0.01)))
        ),
        optax.contrib.split_real_and_imaginary(adabelief(0.3)),
        optax.chain(optax.adaptive_grad_clip(10.0), optax.add_noise(1e-6, 0.5, jax.random.key(0)), adabelief(0.3)),
        optax.conditionally_mask(adabelief(0.3), lambda step, **_: step >= 5),
        optax.chain(scale_by_belief(rectify=True), optax.scale_by_trust_ratio(), optax.scale_by_learning_rate(0.1)),
        optax.chain(scale_by_belief(), optax.scale(-1.0), optax.scale_by_backtracking_linesearch(15)),
    ],
    ids=["schedule_free", "mechanize", "plateau", "sam", "split", "noise", "conditionally", "trust", "linesearch"],
)
def test_wrappers_train(opt):
    opt = optax.with_extra_args_support(opt)
    params = jax.tree.map(lambda x: x[None] if x.ndim == 0 else x, W)

    def body(carry, _):
        params, state = carry
        value, slope = jax.value_and_grad(loss)(params)
        updates, state = opt.update(slope, state, params, value=value, grad=slope, value_fn=loss)
        return (optax.apply_updates(params, updates), state), value

    (params, state), values = jax.jit(lambda p, s: jax.lax.scan(body, (p, s), length=150))(params, opt.init(params))
    if hasattr(state, "z"):
        params = optax.contrib.schedule_free_eval_params(state, params)
    assert float(values[0]) > 40
    assert float(loss(params)) < 0.5


@pytest.mark.parametrize(
    "wrap", [optax.flatten, lambda opt: optax.apply_if_finite(opt, 2), optax.with_extra_args_support]
)
def test_wrappers_that_change_nothing(wrap):
    options = {"weight_decay": 0.1, "amsgrad": True}
    assert_same(run(wrap(adabelief(0.1, **options)))[0], run(adabelief(0.1, **options))[0])


def test_a_partition_of_adabeliefs():
    labels = {"w": "decayed", "b": "plain"}
    opt = optax.partition({"decayed": adabelief(0.1, weight_decay=0.1), "plain": adabelief(0.1)}, labels)
    mask = {"w": True, "b": False}
    chained = optax.named_chain(
        ("clip", optax.clip(1e9)), ("step", adabelief(0.1, weight_decay=0.1, weight_decay_mask=mask))
    )
    new, state = run(chained)
    assert_same(run(opt)[0], new)
    assert set(state) == {"clip", "step"}


# Flax


class Net(nnx.Module):
    def __init__(self):
        self.inner = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        self.calls = nnx.Variable(jnp.array(0))

    def __call__(self, x):
        return self.inner(x)


def test_flax_nnx_optimizer():
    x, opt = jnp.float32([[1.0, 2.0, -1.0]]), adabelief(0.1, weight_decay=0.1, amsgrad=True)
    model = Net()
    optimizer = nnx.Optimizer(model, opt, wrt=nnx.Param)
    params, state = (
        nnx.to_pure_dict(nnx.state(model, nnx.Param)),
        opt.init(nnx.to_pure_dict(nnx.state(model, nnx.Param))),
    )

    @nnx.jit
    def train(model, optimizer):
        slope = nnx.grad(lambda model: jnp.sum(model(x) ** 2))(model)
        optimizer.update(model, slope)
        return nnx.state(slope)

    for _ in range(5):
        slope = nnx.to_pure_dict(train(model, optimizer))
        params, state = stepper(opt)(params, state, slope)
        assert_same(nnx.to_pure_dict(nnx.state(model, nnx.Param)), params)
    assert int(optimizer.step[...]) == int(state[0].count) == 5


# Equinox


class Layer(eqx.Module):
    weight: jax.Array
    steps: jax.Array
    activation: object
    name: str = eqx.field(static=True)

    def __call__(self, x):
        return self.activation(self.weight @ x)


@pytest.mark.parametrize("mask", [None, lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)])
def test_equinox_filtered_trees(mask):
    model = Layer(jnp.ones((2, 3)), jnp.arange(2), jax.nn.tanh, "first")
    opt = adabelief(0.1, weight_decay=0.1, weight_decay_mask=mask)
    state = opt.init(eqx.filter(model, eqx.is_inexact_array))
    weight, inner = model.weight, opt.init(model.weight)

    @eqx.filter_jit
    def train(model, state, x):
        slope = eqx.filter_grad(lambda model: jnp.sum(model(x) ** 2))(model)
        updates, state = opt.update(slope, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state, slope

    for _ in range(5):
        model, state, slope = train(model, state, jnp.float32([0.5, -1.0, 0.1]))
        weight, inner = stepper(opt)(weight, inner, slope.weight)
        assert_same(model.weight, weight)
    assert_same(model.steps, jnp.arange(2))
    assert state[0].mu.steps is None


# Orbax


@pytest.mark.parametrize(
    "opt",
    [
        adabelief(optax.cosine_decay_schedule(0.1, 20), weight_decay=0.1, amsgrad=True, kahan_sum=True),
        optax.chain(optax.clip(1.0), scale_by_belief(mu_dtype="bfloat16"), optax.scale_by_learning_rate(0.1)),
    ],
)
def test_a_run_out_of_an_orbax_checkpoint_has_the_bits_of_one_that_stayed(opt, tmp_path):
    params = W | {"h": jnp.ones((2, 2), jnp.bfloat16)}
    half = run(opt, range(4), params)
    with checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "run", half)
        checkpointer.wait_until_finished()
        abstract = jax.eval_shape(lambda params: (params, opt.init(params)), params)
        placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=params["w"].sharding), abstract)
        restored = checkpointer.restore(tmp_path / "run", placed)
    assert_same(restored, half)
    assert_same(run(opt, range(4, 8), *restored), run(opt, range(4, 8), *half))
