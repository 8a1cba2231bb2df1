"""The optimizer by itself: what Keras' base class promises, and the rule's place in it."""

import doctest

import keras
import numpy as np
import pytest
from keras import ops
from keras_helpers import G, run, same, values

import adabelief_tf._optimizer
from adabelief_tf import AdaBelief


def test_example_of_the_docstring():
    assert doctest.testmod(adabelief_tf._optimizer).failed == 0


def test_update_step_alone_is_the_step():
    _, expected = run(G[:1], weight_decay=0.1)
    variable = keras.Variable(np.float32([1.0, 2.0, 3.0]))
    optimizer = AdaBelief(0.125, weight_decay=0.1)
    optimizer.build([variable])
    optimizer.update_step(ops.convert_to_tensor(G[0]), variable, optimizer.learning_rate)
    same(variable, expected)


def test_update_step_takes_another_learning_rate():
    optimizer, variable = run([])
    optimizer = AdaBelief(0.5)
    optimizer.build([variable])
    optimizer.update_step(ops.convert_to_tensor(G[0]), variable, 0.125)
    same(variable, run(G[:1])[1])


def test_clipvalue():
    same(run(G, clipvalue=1.0)[1], run([np.clip(g, -1, 1) for g in G])[1])


@pytest.mark.parametrize("name", ["clipnorm", "global_clipnorm"])
def test_clipnorm(name):
    clipped = [g / max(1.0, np.linalg.norm(g)) for g in G]
    np.testing.assert_allclose(values(run(G, **{name: 1.0})[1]), values(run(clipped)[1]), rtol=1e-5)


def test_gradient_accumulation_is_one_step_of_the_mean():
    pairs = [(G[0], G[1]), (G[1], G[2])]
    _, accumulated = run(
        [g for pair in pairs for g in pair], gradient_accumulation_steps=2, rectify=True, weight_decay=0.5
    )
    same(accumulated, run([(a + b) / 2 for a, b in pairs], rectify=True, weight_decay=0.5)[1])


def test_nothing_moves_while_gradients_accumulate():
    optimizer, variable = run(G[:1], gradient_accumulation_steps=2, weight_decay=0.5)
    np.testing.assert_array_equal(values(variable), np.float32([1, 2, 3]))
    assert not values(optimizer._momentums[0]).any()
    assert not values(optimizer._beliefs[0]).any()


def test_loss_scale_factor():
    same(run([8 * g for g in G], loss_scale_factor=8.0)[1], run(G)[1])


def test_loss_scale_optimizer_skips_what_is_not_finite(backend):
    variable = keras.Variable(np.float32([1.0, 2.0, 3.0]))
    inner = AdaBelief(0.125, rectify=True)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=4.0)
    optimizer.build([variable])
    for g in (4 * G[0], np.float32([np.inf, 0, 0]), 2 * G[1]):
        grads = [ops.convert_to_tensor(g)]
        if backend == "jax":  # where Keras' LossScaleOptimizer has no other way
            state = [v.value for v in optimizer.variables]
            (new,), state = optimizer.stateless_apply(state, grads, [variable.value])
            for target, value in zip([variable, *optimizer.variables], [new, *state], strict=True):
                target.assign(value)
        else:
            optimizer.apply(grads, [variable])
    same(variable, run(G[:2], rectify=True)[1])
    assert int(inner.iterations) == 2


def test_moving_average():
    optimizer, variable = run(G, use_ema=True, ema_momentum=0.5)
    trail = [values(run(G[: i + 1])[1]) for i in range(3)]
    average = 0.5 * (0.5 * trail[0] + 0.5 * trail[1]) + 0.5 * trail[2]
    same(variable, run(G)[1])
    optimizer.finalize_variable_values([variable])
    np.testing.assert_allclose(values(variable), average, rtol=1e-6)


def test_moving_average_overwrites():
    _, variable = run(G[:2], use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)
    trail = [values(run(G[: i + 1])[1]) for i in range(2)]
    np.testing.assert_allclose(values(variable), 0.5 * trail[0] + 0.5 * trail[1], rtol=1e-6)


def test_constraint_applies_after_the_step():
    _, variable = run(G, constraint=keras.constraints.NonNeg(), start=(0.1, 0.1, 0.1))
    assert (values(variable) >= 0).all()


def test_schedule():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.125, 0.5])
    _, expected = run(G[:1])
    variable = keras.Variable(np.float32([1.0, 2.0, 3.0]))
    optimizer = AdaBelief(schedule)
    optimizer.apply([ops.convert_to_tensor(G[0])], [variable])
    same(variable, expected)
    other = AdaBelief(lambda: 0.125)
    twin = keras.Variable(np.float32([1.0, 2.0, 3.0]))
    other.apply([ops.convert_to_tensor(G[0])], [twin])
    same(twin, expected)
    before = values(variable)
    optimizer.apply([ops.convert_to_tensor(G[1])], [variable])
    other.apply([ops.convert_to_tensor(G[1])], [twin])
    np.testing.assert_allclose((values(variable) - before), 4 * (values(twin) - before), rtol=1e-5)


def test_learning_rate_is_settable():
    optimizer, variable = run([])
    optimizer.build([variable])
    optimizer.learning_rate = 0.25
    optimizer.apply([ops.convert_to_tensor(G[0])])
    twin = keras.Variable(np.float32([1.0, 2.0, 3.0]))
    AdaBelief(0.25).apply([ops.convert_to_tensor(G[0])], [twin])
    same(variable, twin)


def test_attributes_are_settable_and_checked():
    optimizer, variable = run(G[:1])
    optimizer.beta_1 = 1.0
    before = values(variable)
    with pytest.raises(ValueError, match=r"Invalid beta_1: 1\.0"):
        optimizer.apply([ops.convert_to_tensor(G[1])], [variable])
    np.testing.assert_array_equal(values(variable), before)


@pytest.mark.parametrize("how", ["var_list", "var_names"])
@pytest.mark.parametrize("everything", [False, True])
def test_exclude_from_weight_decay(how, everything):
    pair = [keras.Variable(np.float32([1.0, 2.0, 3.0]), name=name) for name in ("kernel", "bias")]
    optimizer = AdaBelief(0.125, weight_decay=0.5)
    chosen = pair if everything else pair[1:]
    given = chosen if how == "var_list" else [v.name for v in chosen]
    optimizer.exclude_from_weight_decay(**{how: given})
    for g in G:
        optimizer.apply([ops.convert_to_tensor(g)] * 2, pair)
    same(pair[0], run(G, weight_decay=None if everything else 0.5)[1])
    same(pair[1], run(G)[1])


def test_weight_decay_none_is_zero():
    same(run(G, weight_decay=None)[1], run(G, weight_decay=0)[1])


def test_a_missing_gradient_leaves_its_variable():
    pair = [keras.Variable(np.float32([1.0, 2.0, 3.0])) for _ in range(2)]
    optimizer = AdaBelief(0.125, weight_decay=0.5)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([ops.convert_to_tensor(G[0]), None], pair)
    np.testing.assert_array_equal(values(pair[1]), np.float32([1, 2, 3]))
    same(pair[0], run(G[:1], weight_decay=0.5)[1])


def test_gradients_of_another_dtype_are_widened():
    variable = keras.Variable(np.float32([1.0, 2.0, 3.0]))
    AdaBelief(0.125).apply([ops.cast(ops.convert_to_tensor(G[0]), "bfloat16")], [variable])
    same(variable, run(G[:1])[1])


def test_numpy_gradients():
    variable = keras.Variable(np.float32([1.0, 2.0, 3.0]))
    AdaBelief(0.125).apply([G[0]], [variable])
    same(variable, run(G[:1])[1])


def test_overwritten_variables_have_no_state():
    pair = [keras.Variable(np.float32([1.0, 2.0, 3.0])) for _ in range(2)]
    pair[1].overwrite_with_gradient = True
    optimizer = AdaBelief(0.125)
    optimizer.apply([ops.convert_to_tensor(G[0])] * 2, pair)
    np.testing.assert_array_equal(values(pair[1]), G[0])
    same(pair[0], run(G[:1])[1])
    assert len(optimizer.variables) == 4  # iterations, learning rate, momentum, belief


@pytest.mark.parametrize("options", [{}, {"amsgrad": True}, {"kahan_sum": True}])
def test_stateless_apply_lends_its_values(backend, options):
    if backend == "tensorflow":
        pytest.skip("Keras has no stateless_apply on TensorFlow")
    optimizer, variable = run([], **options)
    optimizer.build([variable])
    given = [v.value for v in optimizer.variables]
    (new,), _ = optimizer.stateless_apply(given, [ops.convert_to_tensor(G[0])], [variable.value])
    np.testing.assert_array_equal(values(variable), np.float32([1, 2, 3]))
    assert not ops.convert_to_numpy(given[2]).any()
    np.testing.assert_array_equal(ops.convert_to_numpy(new), values(run(G[:1], **options)[1]))


def test_sparse_gradients_are_made_dense(only):
    only("tensorflow")
    import tensorflow as tf

    dense = np.float32([[0, 0], [3, 5], [0, 0]])
    slices = tf.IndexedSlices(tf.constant([[1.0, 2.0], [2.0, 3.0]]), tf.constant([1, 1]), tf.constant([3, 2]))
    pair = [keras.Variable(np.ones((3, 2), np.float32)) for _ in range(2)]
    AdaBelief(0.125).apply([slices], pair[:1])
    AdaBelief(0.125).apply([tf.constant(dense)], pair[1:])
    same(*pair)
    third = keras.Variable(np.ones((3, 2), np.float32))
    AdaBelief(0.125).apply([tf.sparse.from_dense(dense)], [third])
    same(third, pair[1])


def test_replicas(only):
    """Two replicas step by the sum of their gradients, as every Keras optimizer's do."""
    only("tensorflow")
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        variable = keras.Variable(np.float32([1.0, 2.0, 3.0]))
        optimizer = AdaBelief(0.125, rectify=True, weight_decay=0.5, kahan_sum=True)
        optimizer.build([variable])

    @tf.function
    def step(g):
        strategy.run(lambda: optimizer.apply([g / 2], [variable]))

    for g in G:
        step(tf.constant(g))
    same(variable, run(G, rectify=True, weight_decay=0.5, kahan_sum=True)[1])


def test_torch_sees_the_step(only):
    """Writing to memory counts as a change of the tensor, and sparse gradients are made dense."""
    only("torch")
    variable = keras.Variable(np.float32([1.0, 2.0, 3.0]))
    version = variable.value._version
    AdaBelief(0.125).apply([ops.convert_to_tensor(G[0]).to_sparse()], [variable])
    assert variable.value._version > version
    same(variable, run(G[:1])[1])


def test_torch_tensors_that_move(only):
    """The step finds a variable where it lies now: in other memory, in another tensor, and with strides."""
    only("torch")
    import torch

    grads = [np.stack([g, -g]) for g in G]
    start = np.float32([[1, 2, 3], [4, 5, 6]])
    still, moving = (keras.Variable(start) for _ in range(2))
    a, b = AdaBelief(0.125), AdaBelief(0.125)
    moves = [
        lambda: None,
        lambda: setattr(moving._value, "data", moving._value.data.clone()),
        lambda: setattr(moving, "_value", torch.nn.Parameter(moving._value.detach().T.contiguous().T)),
    ]
    for g, move in zip(grads, moves, strict=True):
        move()
        a.apply([ops.convert_to_tensor(g)], [still])
        b.apply([ops.convert_to_tensor(g)], [moving])
        same(moving, still)
    assert not moving._value.is_contiguous()
    assert (values(still) != start).all()


def test_torch_tensors_off_the_cpu(only, monkeypatch):
    """The path for other devices, on a CPU: the core's bits but for PyTorch's √, off by an ulp there."""
    only("torch")
    from adabelief_tf import _backend_torch

    monkeypatch.setattr(_backend_torch, "_on_cpu", lambda variables: False)
    variable = keras.Variable(np.float32([1.0, 2.0, 3.0]))
    options = {"rectify": True, "amsgrad": True, "weight_decay": 0.5, "kahan_sum": True}
    optimizer = AdaBelief(0.125, **options)
    for g in G:
        optimizer.apply([ops.convert_to_tensor(g)], [variable])
    expected = values(run(G, **options)[1])
    np.testing.assert_array_max_ulp(values(variable), expected, maxulp=4)
