"""`AdaBeliefOptimizer`: scripts written for adabelief-tf 0.2.1 run unchanged, and take its steps."""

import doctest
import inspect

import keras
import numpy as np
import pytest
from keras import ops
from keras_helpers import G, run, same, values

import adabelief_tf._drop_in
from adabelief_tf import AdaBelief, AdaBeliefOptimizer, WarmupLinearDecay

SIGNATURE = {
    "learning_rate": 0.001,
    "beta_1": 0.9,
    "beta_2": 0.999,
    "epsilon": 1e-14,
    "weight_decay": 0.0,
    "rectify": True,
    "amsgrad": False,
    "sma_threshold": 5.0,
    "total_steps": 0,
    "warmup_proportion": 0.1,
    "min_lr": 0.0,
    "name": "AdaBeliefOptimizer",
    "print_change_log": True,
}
"""Of adabelief-tf 0.2.1, in its order."""


def apply(optimizer, grads, variable=None):
    variable = keras.Variable(np.float32([1, 2, 3])) if variable is None else variable
    for g in grads:
        optimizer.apply_gradients([(ops.convert_to_tensor(g), variable)])
    return variable


def test_examples_of_the_docstrings():
    assert doctest.testmod(adabelief_tf._drop_in).failed == 0


def test_signature_and_defaults(capsys):
    parameters = list(inspect.signature(AdaBeliefOptimizer).parameters.values())
    positional = {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
    assert list(positional.items()) == list(SIGNATURE.items())
    optimizer = AdaBeliefOptimizer(*SIGNATURE.values())
    config = optimizer.get_config()
    assert all(config[name] == pytest.approx(value) for name, value in SIGNATURE.items() if name in config)
    assert capsys.readouterr() == ("", "")


def theirs(grads, lr, *, epsilon=1e-14, weight_decay=0.0, rectify=True, amsgrad=False, sma_threshold=5.0, warmup=None):
    """The parameter after these steps, by adabelief-tf's formulas, in float64."""
    p, m, v, v_max = np.float64([1, 2, 3]), 0.0, 0.0, 0.0
    rho_max = 2 / (1 - 0.999) - 1
    for t, g in enumerate(np.float64(grads), 1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * (g - m) ** 2 + epsilon
        v_max = np.maximum(v_max, v)
        corrected = np.sqrt((v_max if amsgrad else v) / (1 - 0.999**t)) + epsilon
        rho = rho_max - 2 * t * 0.999**t / (1 - 0.999**t)
        step = m / (1 - 0.9**t)
        if not rectify:
            step = step / corrected
        elif rho >= sma_threshold:
            step = step / corrected * np.sqrt((rho - 4) / (rho_max - 4) * (rho - 2) / (rho_max - 2) * rho_max / rho)
        p = p - (lr if warmup is None else warmup(t)) * (step + weight_decay * p)
    return p


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rectify": False},
        {"amsgrad": True},
        {"amsgrad": True, "rectify": False, "weight_decay": 0.25},
        {"weight_decay": 0.25, "sma_threshold": 7.5},
        {"epsilon": 1e-7},
    ],
)
def test_its_steps(options):
    grads = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
    v = apply(AdaBeliefOptimizer(0.0625, **options), grads)
    # 1e-7 as ε: under rectify it is not divided by √(1 - β2^t) here, 1e-6 of a denominator of 0.1.
    np.testing.assert_allclose(values(v), theirs(grads, 0.0625, **options), rtol=3e-6)


def test_its_warm_up():
    """6 of 10 steps up, 4 down to 0.01, and there it stays."""

    def rate(t):
        return 0.5 * t / 6 if t <= 6 else 0.5 + (0.01 - 0.5) * min(t - 6, 4) / 4

    schedule = WarmupLinearDecay(0.5, total_steps=10, warmup_proportion=0.6, min_lr=0.01)
    np.testing.assert_allclose([float(schedule(t - 1)) for t in range(1, 14)], [rate(t) for t in range(1, 14)], 1e-6)
    grads = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
    options = {"total_steps": 10, "warmup_proportion": 0.6, "min_lr": 0.01}
    v = apply(AdaBeliefOptimizer(lr=0.5, **options), grads)
    np.testing.assert_allclose(values(v), theirs(grads, 0.5, warmup=rate), rtol=1e-5)


@pytest.mark.parametrize(("proportion", "expected"), [(0.0, [0.75, 0.5, 0.25, 0]), (1.0, [0.25, 0.5, 0.75, 1])])
def test_a_warm_up_of_nothing_or_all(proportion, expected):
    schedule = WarmupLinearDecay(1.0, total_steps=4, warmup_proportion=proportion)
    np.testing.assert_allclose([float(schedule(step)) for step in range(4)], expected, atol=1e-7)


def test_the_warm_up_of_a_schedule_is_serializable():
    inner = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9)
    schedule = WarmupLinearDecay(inner, 10, min_lr=0.1, name="mine")
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert type(again) is WarmupLinearDecay
    assert again.get_config() == schedule.get_config()
    assert float(again(3)) == float(schedule(3))
    config = keras.optimizers.serialize(AdaBelief(schedule))
    assert keras.optimizers.deserialize(config)._learning_rate.get_config() == schedule.get_config()


@pytest.mark.parametrize(
    "options",
    [
        {"total_steps": 8, "min_lr": 1e-3, "warmup_proportion": 0.25},
        {"total_steps": 8, "decay": 0.5, "sma_threshold": 6.0, "amsgrad": True},
    ],
)
def test_a_saved_run_goes_on(options, make_model, data, tmp_path):
    models = [make_model(AdaBeliefOptimizer(lr=0.125, print_change_log=False, **options)) for _ in range(2)]
    straight, stopped = models
    for model in models:
        model.fit(*data, epochs=3, shuffle=False, verbose=0)
    stopped.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is AdaBeliefOptimizer
    assert loaded.optimizer.get_config() == stopped.optimizer.get_config()
    for model in (straight, loaded):
        model.fit(*data, epochs=3, shuffle=False, verbose=0)
    for a, b in zip(straight.variables, loaded.variables, strict=True):
        same(a, b)


def test_old_names():
    optimizer = AdaBeliefOptimizer(lr=1)  # a whole number, which Keras 3 would refuse
    assert float(optimizer.lr) == 1.0
    optimizer.lr = 0.125
    assert float(optimizer.learning_rate) == 0.125
    same(apply(optimizer, G), run(G, rectify=True, epsilon=1e-14)[1])


def test_decay_divides_the_learning_rate():
    optimizer = AdaBeliefOptimizer(0.5, decay=1.0)
    assert [float(optimizer._learning_rate(step)) for step in (0, 1, 3)] == [0.5, 0.25, 0.125]


@pytest.mark.parametrize("epsilon", [0, None])
def test_no_epsilon_is_that_of_keras(epsilon):
    assert AdaBeliefOptimizer(epsilon=epsilon).epsilon == keras.config.epsilon()


def test_a_learning_rate_assigned_later_has_no_warm_up():
    optimizer = AdaBeliefOptimizer(0.5, total_steps=10)
    optimizer.learning_rate = keras.optimizers.schedules.PolynomialDecay(0.125, 4)
    again = AdaBeliefOptimizer.from_config(optimizer.get_config())
    same(apply(again, G), apply(optimizer, G))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1.0}, r"Invalid learning_rate: -1\.0"),
        ({"lr": -1.0}, r"Invalid learning_rate: -1\.0"),
        ({"sma_threshold": 3.0}, r"Invalid sma_threshold: 3\.0 \(expected a number >= 4\)"),
        ({"total_steps": -1}, r"Invalid total_steps: -1 \(expected a number > 0\)"),
        ({"total_steps": 9, "warmup_proportion": 1.5}, r"Invalid warmup_proportion: 1\.5"),
        ({"total_steps": 9, "min_lr": -0.5}, r"Invalid min_lr: -0\.5"),
        ({"decay": -0.5}, r"Invalid decay: -0\.5"),
        ({"decay": 0.5, "learning_rate": lambda: 0.5}, r"Invalid decay: 0\.5 \(learning_rate is a schedule already\)"),
        ({"momentum": 0.5}, "not recognized"),
    ],
)
def test_values(options, message):
    with pytest.raises(ValueError, match=message):
        AdaBeliefOptimizer(**options)
