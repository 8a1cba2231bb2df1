"""What Keras' own tests ask of any optimizer, asked of these: on each backend, each in a process of its own."""

import copy
import inspect
import itertools
import pickle

import keras
import numpy as np
import pytest
from keras import ops
from keras_helpers import G, core, run, same, values

from adabelief_core.parity import Problem, check
from adabelief_tf import AdaBelief, AdaBeliefOptimizer
from adabelief_tf._parity import adapter

OURS = [AdaBelief, AdaBeliefOptimizer]


def variable(value=(1.0, 2.0, 3.0), dtype="float32", **options):
    return keras.Variable(np.asarray(value, np.float32), dtype=dtype, **options)


def steps(optimizer, grads, v):
    for g in grads:
        optimizer.apply_gradients([(ops.convert_to_tensor(g), v)])
    return v


@pytest.mark.parametrize("ours", OURS)
def test_serialization_round_trip(ours):
    optimizer = ours(learning_rate=0.5, weight_decay=0.008, beta_1=0.5, beta_2=0.67, epsilon=1e-5, amsgrad=True)
    config = optimizer.get_config()
    assert ours.from_config(config).get_config() == config
    assert keras.optimizers.deserialize(keras.optimizers.serialize(optimizer)).get_config() == config
    assert keras.optimizers.get(keras.optimizers.serialize(optimizer)).get_config() == config
    assert set(config) == set(inspect.signature(ours).parameters | inspect.signature(AdaBelief).parameters) - {
        "kwargs",
        "lr",
        "print_change_log",
    }


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("ours", OURS)
@pytest.mark.filterwarnings("ignore:Skipping variable loading")
def test_pickles(ours, how):
    """The state goes with the model, as any Keras optimizer's."""
    optimizer = ours(0.5, use_ema=True, name="mine")
    assert how(optimizer).get_config() == optimizer.get_config()
    steps(optimizer, G[:1], variable())
    assert type(how(optimizer)) is ours


def test_names():
    for name in ("adabelief", "AdaBelief"):
        assert type(keras.optimizers.get(name)) is AdaBelief
    for name in ("adabeliefoptimizer", "AdaBeliefOptimizer"):
        assert type(keras.optimizers.get(name)) is AdaBeliefOptimizer
    assert keras.optimizers.get({"class_name": "adabelief", "config": {"beta_1": 0.5}}).beta_1 == 0.5
    with pytest.raises(ValueError, match="Could not interpret"):
        keras.optimizers.get("adabelieve")


def test_compile_by_name(make_model, data):
    by_name, by_hand = make_model("adabelief"), make_model(AdaBelief())
    for model in (by_name, by_hand):
        model.train_on_batch(*data)
    for a, b in zip(by_name.variables, by_hand.variables, strict=True):
        same(a, b)


def test_single_step():
    np.testing.assert_array_equal(values(steps(AdaBelief(0.5), G[:1], variable())), core(G[:1], lr=0.5))


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.5, "eps": 2.0}, {"rectify": True, "amsgrad": True}])
def test_golden_values_of_the_core(options):
    grads = [np.full(10, 0.01, np.float32), *[np.arange(0.1, 1.1, 0.1, np.float32)] * 5]
    ones = np.ones(10, np.float32)
    named = {"epsilon" if name == "eps" else name: value for name, value in options.items()}
    optimizer, v = AdaBelief(1.0, **named), variable(ones)
    for i in range(len(grads)):
        steps(optimizer, grads[i : i + 1], v)
        np.testing.assert_array_equal(values(v), core(grads[: i + 1], start=ones, lr=1.0, **options))


def test_weight_decay_and_exclusion():
    """Keras' own test, on scalars: a zero gradient moves what is decayed alone."""
    for how in ({"var_names": ["exclude"]}, {"var_list": [1]}, {"var_names": ["v"]}):
        pair = [variable(2.0, name="v_plain"), variable(2.0, name="v_exclude")]
        optimizer = AdaBelief(1.0, weight_decay=0.004)
        optimizer.exclude_from_weight_decay(
            **{k: [pair[i] for i in x] if k == "var_list" else x for k, x in how.items()}
        )
        optimizer.apply_gradients(zip([ops.zeros(())] * 2, pair, strict=True))
        assert float(values(pair[1])) == 2.0
        assert float(values(pair[0])) == (2.0 if how == {"var_names": ["v"]} else np.float32(2 - np.float32(0.004) * 2))


def test_clips():
    for options, expected in (({"clipnorm": 1}, 0.5**0.5), ({"clipvalue": 1}, 1.0), ({"global_clipnorm": 1}, 0.5**0.5)):
        (clipped,) = AdaBelief(**options)._clip_gradients([ops.convert_to_tensor(np.float32([100, 100]))])
        np.testing.assert_allclose(ops.convert_to_numpy(clipped), [expected] * 2, rtol=1e-6)


def test_no_gradient_at_all():
    with pytest.raises(ValueError, match="No gradients provided for any variable"):
        AdaBelief().apply_gradients([(None, variable())])


def test_iterations_count():
    optimizer, v = AdaBelief(), variable()
    for n in range(3):
        assert int(optimizer.iterations) == n
        assert int(optimizer.apply_gradients([(ops.convert_to_tensor(G[0]), v)])) == n + 1


def test_set_weights():
    optimizer, other = run(G)[0], AdaBelief(0.125)
    with pytest.raises(ValueError, match="You are calling"):
        other.set_weights(optimizer.variables)
    other.build([variable()])
    before = [v.numpy() for v in other.variables]
    for wrong in (optimizer.variables[:-1], [*optimizer.variables[:-1], np.zeros(7)]):
        with pytest.raises(ValueError, match=r"4 variables|was saved with shape \(7,\)"):
            other.set_weights(wrong)
        for a, b in zip(before, other.variables, strict=True):
            np.testing.assert_array_equal(a, b.numpy())
    other.set_weights(optimizer.variables)
    for a, b in zip(optimizer.variables, other.variables, strict=True):
        same(a, b)


def test_static_loss_scale():
    optimizer = AdaBelief(0.125, loss_scale_factor=1024.0)
    same(steps(optimizer, [1024 * g for g in G], variable()), run(G)[1])
    assert optimizer.scale_loss(1.0) == 1024.0


@pytest.mark.parametrize("options", [{}, {"amsgrad": True, "nesterov": True}])
def test_accumulation_is_a_step_of_the_mean(options):
    rng = np.random.default_rng(0)
    one, many = (
        AdaBelief(0.25, weight_decay=0.05, **options),
        AdaBelief(0.25, weight_decay=0.05, gradient_accumulation_steps=4, **options),
    )
    a, b = variable(), variable()
    for _ in range(5):
        grads = rng.integers(-64, 64, (4, 3)).astype(np.float32)  # whose sums are exact
        steps(one, [grads.mean(axis=0)], a)
        steps(many, grads, b)
        same(a, b)
    assert not values(many._accumulated_gradients[0]).any()


def test_overwriting_while_gradients_accumulate():
    pair = [variable(), variable()]
    pair[0].overwrite_with_gradient = True
    optimizer = AdaBelief(0.125, gradient_accumulation_steps=2)
    for g, h in itertools.pairwise(G):
        optimizer.apply_gradients([(ops.convert_to_tensor(g), pair[0]), (ops.convert_to_tensor(h), pair[1])])
    np.testing.assert_array_equal(values(pair[0]), np.maximum(G[0], G[1]))
    same(pair[1], run([(G[1] + G[2]) / 2])[1])


def test_the_learning_rate_becomes_a_schedule():
    optimizer = AdaBelief(0.125)
    optimizer.learning_rate = keras.optimizers.schedules.PolynomialDecay(0.125, 4)
    assert len(optimizer.variables) == 1
    same(steps(optimizer, G[:1], variable()), run(G[:1])[1])


def test_a_weight_decay_on_a_schedule():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.5, 0.0])
    optimizer = AdaBelief(0.125, weight_decay=schedule)
    v = steps(optimizer, G[:1], variable())
    same(v, run(G[:1], weight_decay=0.5)[1])
    one_step, moments = values(v), [values(x) for x in optimizer.variables[2:]]
    steps(optimizer, G[1:2], v)
    plain = AdaBelief(0.125)
    twin = variable(one_step)
    plain.build([twin])
    plain.set_weights([np.int32(1), np.float32(0.125), *moments])
    same(v, steps(plain, G[1:2], twin))
    config = optimizer.get_config()
    assert AdaBelief.from_config(config).weight_decay.get_config() == schedule.get_config()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clipnorm": 1.0},
        {"global_clipnorm": 1.0},
        {"gradient_accumulation_steps": 2},
        {"loss_scale_factor": 1024.0},
    ],
)
def test_half_precision_variables_stay_finite(options, dtype):
    """60,000² and 60,000 + 60,000 overflow float16, and 1/1024 of the smallest subnormal is 0."""
    v = variable(dtype=dtype)
    optimizer = AdaBelief(2.0**-6, **options)
    for _ in range(4):
        optimizer.apply_gradients([(ops.cast(ops.convert_to_tensor(np.float32([6e4, 6e-8, 0])), dtype), v)])
    moved = values(v) - np.float32([1, 2, 3])
    assert np.isfinite(moved).all()
    assert moved[0] < 0
    assert moved[2] == 0
    assert values(optimizer._momentums[0])[1] > 0
    assert {m.dtype for m in optimizer._momentums + optimizer._beliefs} == {"float32"}


def test_a_learning_rate_in_float64():
    """Keras keeps it in float32, but float64 variables have it as it was given."""
    problem = Problem("", "float64", {"weight_decay": 0.3}, lr=0.1, steps=3, tensors=("odd", "scalar"))
    assert float(np.float32(0.1)) != 0.1
    for mode in adapter.modes():
        assert check(mode, problem).differing == 0
        assert mode.start(problem)._optimizer.get_config()["learning_rate"] == 0.1
