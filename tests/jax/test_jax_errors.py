"""Every input that is refused: with the argument's name and value, and before anything is computed."""

import doctest
import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adabelief_jax
from adabelief_jax import ScaleByBeliefState, adabelief, scale_by_belief

W = {"w": jnp.ones(3), "b": jnp.ones(())}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"learning_rate": -0.1}, ValueError, "Invalid learning_rate: -0.1"),
        ({"learning_rate": np.nan}, ValueError, "Invalid learning_rate: nan"),
        ({"learning_rate": "0.1"}, TypeError, "Invalid learning_rate: '0.1'"),
        ({"learning_rate": None}, TypeError, "Invalid learning_rate: None"),
        ({"learning_rate": jnp.float32(-2.0)}, ValueError, "Invalid learning_rate: -2.0"),
        ({"learning_rate": jnp.ones(2)}, ValueError, "Invalid learning_rate: an array of shape (2,)"),
        ({"b1": 1.0}, ValueError, "Invalid b1: 1.0 (expected a number in [0, 1))"),
        ({"b1": -0.1}, ValueError, "Invalid b1: -0.1"),
        ({"b2": 1.5}, ValueError, "Invalid b2: 1.5"),
        ({"b2": True}, TypeError, "Invalid b2: True"),
        # 0.999 is 1 in bfloat16, where `inject_hyperparams` puts it for bfloat16 parameters.
        ({"b2": jnp.bfloat16(0.999)}, ValueError, "Invalid b2: 1.0"),
        ({"eps": -1e-8}, ValueError, "Invalid eps: -1e-08"),
        ({"eps_root": np.inf}, ValueError, "Invalid eps_root: inf"),
        ({"weight_decay": -1}, ValueError, "Invalid weight_decay: -1"),
        ({"weight_decay": np.ones(1)}, ValueError, "Invalid weight_decay: an array of shape (1,)"),
        ({"update_clip": 0.0}, ValueError, "Invalid update_clip: 0.0 (expected None or a finite number > 0)"),
        ({"update_clip": jnp.float32(-1)}, ValueError, "Invalid update_clip: -1.0"),
        ({"update_clip": np.inf}, ValueError, "Invalid update_clip: inf"),
        ({"update_clip": "1"}, TypeError, "Invalid update_clip: '1'"),
        ({"update_clip": jnp.ones(2)}, ValueError, "Invalid update_clip: an array of shape (2,)"),
        ({"weight_decay_mask": True}, ValueError, "Invalid weight_decay_mask: True (there is no weight_decay"),
        ({"nesterov": 1}, TypeError, "Invalid nesterov: 1 (expected a bool)"),
        ({"amsgrad": None}, TypeError, "Invalid amsgrad: None"),
        ({"rectify": "yes"}, TypeError, "Invalid rectify: 'yes'"),
        ({"degenerated_to_sgd": 0}, TypeError, "Invalid degenerated_to_sgd: 0"),
        ({"weight_decouple": 0}, TypeError, "Invalid weight_decouple: 0"),
        ({"kahan_sum": 1}, TypeError, "Invalid kahan_sum: 1 (expected None or a bool)"),
        ({"fixed_decay": True, "weight_decouple": False}, ValueError, "Invalid fixed_decay: True"),
        ({"maximize": True}, TypeError, "maximize"),
        ({"betas": (0.9, 0.99)}, TypeError, "betas"),
    ],
)
def test_hyperparameters(options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        adabelief(**{"learning_rate": 0.1, **options})
    shared = ("b1", "b2", "eps", "eps_root", "nesterov", "amsgrad", "rectify", "degenerated_to_sgd", "maximize")
    if all(name in (*shared, "update_clip") for name in options):
        with pytest.raises(error, match=re.escape(message)):
            scale_by_belief(**options)


def test_a_traced_hyperparameter_must_be_a_scalar():
    with pytest.raises(ValueError, match=re.escape("Invalid b1: an array of shape (2,)")):
        jax.jit(lambda b1: adabelief(0.1, b1).init(W))(jnp.full(2, 0.9))


def test_a_schedule_must_give_a_scalar():
    opt = adabelief(lambda count: jnp.ones(2) * count)
    with pytest.raises(ValueError, match=re.escape("Invalid learning_rate(count): an array of shape (2,)")):
        opt.update(W, opt.init(W))


@pytest.mark.parametrize("make", [lambda: adabelief(0.1), scale_by_belief])
@pytest.mark.parametrize(
    ("leaf", "dtype"),
    [
        (jnp.arange(3), "int32"),
        (jnp.array(True), "bool"),
        (jnp.ones(2, jnp.float8_e4m3fn), "float8_e4m3fn"),
        (jax.random.key(0), "key<fry>"),
    ],
)
def test_parameters_of_other_dtypes(make, leaf, dtype):
    with pytest.raises(TypeError, match=re.escape(f"Invalid params['a'][1]: {dtype} (expected float16")):
        make().init({"a": [jnp.ones(2), leaf]})


MOMENTS = ScaleByBeliefState(jnp.int32(0), W, W)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("updates", "state", "message"),
    [
        (W | {"w": jnp.ones(4)}, MOMENTS, "Invalid updates['w']: float32[4] (expected float32[3], no wider than"),
        (W | {"w": jnp.arange(3)}, MOMENTS, "Invalid updates['w']: int32[3]"),
        (W | {"w": jnp.ones(3) * 1j}, MOMENTS, "Invalid updates['w']: complex64[3]"),
        (W | {"w": None}, MOMENTS, "Invalid updates['w']: None (expected float32[3], as state.mu)"),
        (W | {"more": jnp.ones(1)}, MOMENTS, "Invalid updates: a tree of another structure than state.mu"),
        ({"w": W["w"]}, MOMENTS, "Invalid updates: a tree of another structure than state.mu"),
        (list(W.values()), MOMENTS, "Invalid updates: a tree of another structure than state.mu"),
        (W, MOMENTS._replace(mu=W | {"w": None}), "Invalid updates['w']: float32[3] (expected None, as state.mu)"),
        (W, MOMENTS._replace(nu=W | {"w": jnp.ones(2)}), "Invalid state.nu['w']: float32[2]"),
        (W, MOMENTS._replace(nu=W | {"w": jnp.ones(3, jnp.bfloat16)}), "Invalid state.nu['w']: bfloat16[3]"),
        (W, MOMENTS._replace(mu=W | {"w": jnp.ones(3, jnp.bfloat16)}), "Invalid updates['w']: float32[3] (expected"),
        (W, MOMENTS._replace(nu=[1.0]), "Invalid updates: a tree of another structure than state.nu"),
    ],
)
def test_updates_that_do_not_fit(updates, state, message, compiled):
    update = scale_by_belief().update
    with pytest.raises(ValueError, match=re.escape(message)):
        (jax.jit(update) if compiled else update)(updates, state)


def test_an_update_that_is_no_array():
    with pytest.raises(ValueError, match=re.escape("Invalid updates['w']: 'x' (expected an array)")):
        scale_by_belief().update(W | {"w": "x"}, MOMENTS)


def test_gradients_of_integers_are_refused():
    grads = jax.grad(lambda n: jnp.float32(n) * 2, allow_int=True)(3)
    with pytest.raises(ValueError, match="Invalid updates: "):
        scale_by_belief().update(grads, scale_by_belief().init(jnp.ones(())))


def test_a_gradient_wider_than_the_moments():
    state = scale_by_belief().init(W)
    with jax.enable_x64(True):
        grads = W | {"w": jnp.ones(3, jnp.float64)}
        with pytest.raises(ValueError, match=re.escape("Invalid updates['w']: float64[3]")):
            scale_by_belief().update(grads, state)


def test_a_state_without_nu_max():
    state = scale_by_belief().init(W)
    with pytest.raises(ValueError, match="nu_max is None"):
        scale_by_belief(amsgrad=True).update(W, state)


@pytest.mark.parametrize("options", [{}, {"weight_decouple": False}, {"fixed_decay": True}])
def test_a_decay_needs_the_parameters(options):
    opt = adabelief(0.1, weight_decay=0.1, **options)
    with pytest.raises(ValueError, match="weight_decay needs the parameters"):
        opt.update(W, opt.init(W))


def test_a_decay_checks_the_parameters():
    opt = adabelief(0.1, weight_decay=0.1)
    state = opt.init(W)
    with pytest.raises(ValueError, match=re.escape("Invalid params['w']: float32[2] (expected float32[3]")):
        opt.update(W, state, W | {"w": jnp.ones(2)})
    with pytest.raises(ValueError, match="another structure than params"):
        opt.update(W, state, {})


@pytest.mark.parametrize(
    ("mask", "error"),
    [({"w": 1.0, "b": True}, TypeError), ({"w": True}, ValueError), (lambda tree: [True], ValueError)],
)
def test_masks(mask, error):
    opt = adabelief(0.1, weight_decay=0.1, weight_decay_mask=mask)
    with pytest.raises(error, match="Invalid weight_decay_mask: "):
        opt.update(W, opt.init(W), W)


@pytest.mark.parametrize("name", ["_adabelief", "_scale_by_belief", "_state"])
def test_examples(name):
    result = doctest.testmod(importlib.import_module(f"adabelief_jax.{name}"))
    assert result.attempted
    assert not result.failed


def test_public_names():
    names = ["ScaleByBeliefState", "adabelief", "presets", "restore", "scale_by_belief", "snapshot"]
    assert sorted(adabelief_jax.__all__) == names
    assert isinstance(adabelief(0.1), optax.GradientTransformationExtraArgs)
    assert isinstance(scale_by_belief(), optax.GradientTransformation)
