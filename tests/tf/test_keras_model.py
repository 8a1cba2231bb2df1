"""The optimizer in a model: fit in every way to run, save, load and go on."""

import keras
import numpy as np
import pytest

from adabelief_tf import AdaBelief

ALL = {
    "learning_rate": 0.0625,
    "beta_1": 0.8,
    "beta_2": 0.99,
    "epsilon": 1e-12,
    "weight_decay": 0.125,
    "epsilon_root": 1e-14,
    "weight_decouple": True,
    "fixed_decay": True,
    "rectify": True,
    "degenerated_to_sgd": False,
    "amsgrad": True,
    "nesterov": True,
    "maximize": True,
    "kahan_sum": True,
    "update_clip": 0.25,
    "clipnorm": 2.0,
    "clipvalue": None,
    "global_clipnorm": None,
    "use_ema": True,
    "ema_momentum": 0.5,
    "ema_overwrite_frequency": 3,
    "loss_scale_factor": 4.0,
    "gradient_accumulation_steps": 2,
    "name": "mine",
}


def weights(model):
    return [v.numpy() for v in [*model.trainable_variables, *model.optimizer.variables]]


def assert_same(a, b):
    for x, y in zip(weights(a), weights(b), strict=True):
        np.testing.assert_array_equal(x, y)


WAYS = {
    "default": {},
    "eager": {"run_eagerly": True},
    "graph": {"jit_compile": False},
    "jit": {"jit_compile": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_fit(way, make_model, data, backend):
    if backend == "torch" and way == "jit":
        pytest.skip("torch.compile of Keras' train step has a test of its own")
    model = make_model(AdaBelief(0.05, weight_decay=1e-3), **WAYS[way])
    first = model.evaluate(*data, verbose=0)
    model.fit(*data, epochs=15, batch_size=8, verbose=0)
    assert model.evaluate(*data, verbose=0) < 0.5 * first
    assert int(model.optimizer.iterations) == 30


def test_get_config_round_trip():
    optimizer = AdaBelief(**ALL)
    assert optimizer.get_config() == ALL
    assert AdaBelief.from_config(optimizer.get_config()).get_config() == ALL
    config = keras.optimizers.serialize(optimizer)
    assert config["registered_name"] == "adabelief>AdaBelief"
    assert keras.optimizers.deserialize(config).get_config() == ALL


def test_config_of_a_schedule():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9)
    config = keras.optimizers.serialize(AdaBelief(schedule))
    assert keras.optimizers.deserialize(config)._learning_rate.get_config() == schedule.get_config()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"amsgrad": True, "rectify": True, "weight_decay": 0.1, "use_ema": True},
        {"gradient_accumulation_steps": 2},
        {"amsgrad": True, "kahan_sum": True},
    ],
)
def test_saved_model_goes_on(options, make_model, data, tmp_path):
    """Ten steps are five steps, a file, and five more: bit for bit."""
    straight, stopped = make_model(AdaBelief(0.05, **options)), make_model(AdaBelief(0.05, **options))
    for _ in range(5):
        straight.train_on_batch(*data)
        stopped.train_on_batch(*data)
    stopped.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, AdaBelief)
    assert_same(loaded, stopped)
    for _ in range(5):
        straight.train_on_batch(*data)
        loaded.train_on_batch(*data)
    assert_same(loaded, straight)


@pytest.fixture
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"], indirect=True)
def test_half_precision(policy, make_model, data, tmp_path):
    model = make_model(AdaBelief(0.05))
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")
    first = model.evaluate(*data, verbose=0)
    model.fit(*data, epochs=25, batch_size=8, verbose=0)
    assert model.evaluate(*data, verbose=0) < 0.5 * first
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    assert {v.dtype for v in inner._momentums + inner._beliefs} == {"float32"}
    model.save(tmp_path / "model.keras")
    assert_same(keras.saving.load_model(tmp_path / "model.keras"), model)


def test_a_state_of_other_shapes_is_refused(make_model, data):
    model = make_model(AdaBelief(0.05))
    model.train_on_batch(*data)
    store = {}
    model.optimizer.save_own_variables(store)
    before = weights(model)
    other = dict(store) | {"3": np.zeros((7, 7))}
    with pytest.raises(ValueError, match=r"'adabelief/.*was saved with shape \(7, 7\) \(expected \("):
        model.optimizer.load_own_variables(other)
    for x, y in zip(weights(model), before, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_state_of_another_number_of_variables_is_not_taken_silently(make_model, data):
    model = make_model(AdaBelief(0.05))
    model.train_on_batch(*data)
    store = {}
    model.optimizer.save_own_variables(store)
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer 'adabelief'"):
        make_model(AdaBelief(amsgrad=True)).optimizer.load_own_variables(store)


def test_weights_file_goes_on(make_model, data, tmp_path):
    model = make_model(AdaBelief(0.05))
    model.train_on_batch(*data)
    model.save_weights(tmp_path / "model.weights.h5")
    other = make_model(AdaBelief(0.05))
    other.optimizer.build(other.trainable_variables)
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same(other, model)


def test_torch_compile(make_model, data, only):
    """torch.compile leaves the step to the optimizer: the bits of the eager one."""
    only("torch")
    import torch

    x = keras.Variable(np.float32([1.0, 2.0]))
    y = keras.Variable(np.float32([1.0, 2.0]))
    a, b = AdaBelief(0.125), AdaBelief(0.125)
    a.build([x])
    b.build([y])
    compiled = torch.compile(a.apply, backend="eager")
    for g in ([0.5, 3.0], [1.5, -2.0]):
        compiled([torch.tensor(g)])
        b.apply([torch.tensor(g)])
    np.testing.assert_array_equal(x.numpy(), y.numpy())
