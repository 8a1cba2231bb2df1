"""TensorFlow's own ways to train: loops on tf.Variable, slices, replicas."""

from functools import cache

import keras
import numpy as np
import pytest
from keras_helpers import G, core, run, values

from adabelief_tf import AdaBelief

if keras.backend.backend() != "tensorflow":
    pytest.skip("about the tensorflow backend", allow_module_level=True)
import tensorflow as tf

from adabelief_tf import _backend_tensorflow as backend_tensorflow

OPTIONS = {"rectify": True, "weight_decay": 0.5, "amsgrad": True}
LOOPS = {
    "eager": lambda f: f,
    "graph": tf.function,
    "graph, rule by xla": tf.function,
    "xla": lambda f: tf.function(f, jit_compile=True),
}


@pytest.fixture(autouse=True)
def _rule_by_xla(request, monkeypatch):
    """Variables of any size are large where the test says so."""
    if "rule by xla" in request.node.name:
        monkeypatch.setattr(backend_tensorflow, "LEAST", 0)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_on_variables_of_tensorflow(loop):
    """The first call in a tf.function builds the optimizer, as it does Keras' own."""
    v, scalar = tf.Variable([1.0, 2.0, 3.0], name="w"), tf.Variable(1.0)
    optimizer = AdaBelief(0.125, **OPTIONS)
    if loop == "xla":  # which creates no variables
        optimizer.build([v, scalar])

    def step(g):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(g * v) + scalar * g[0]
        variables = [v, scalar]
        return optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    step = LOOPS[loop](step)
    for g in G:
        step(tf.constant(g))
    np.testing.assert_array_equal(v.numpy(), core(G, **OPTIONS))
    np.testing.assert_array_equal(scalar.numpy(), core([g[0] for g in G], start=1.0, **OPTIONS))


@pytest.mark.parametrize("xla", [True, False])
def test_the_rule_of_a_large_variable_is_compiled_where_xla_is(xla, monkeypatch):
    """A graph on a CPU is not compiled by Keras."""
    if not xla:  # TensorFlow without XLA, as some of Apple's builds are, says so at the first compilation
        function = tf.function

        def without(f, *args, jit_compile=None, **options):
            if jit_compile:
                raise tf.errors.UnimplementedError(None, None, "could not find registered compiler for platform Host")
            return function(f, *args, **options)

        monkeypatch.setattr(tf, "function", without)
    monkeypatch.setattr(backend_tensorflow, "_xla_has", cache(backend_tensorflow._xla_has.__wrapped__))
    start, g = np.linspace(-1, 1, 2**14 + 3, dtype=np.float32).reshape(1, -1), np.float32(0.25)
    large, small = keras.Variable(start), keras.Variable(start[:, :9])
    optimizer = AdaBelief(0.125, **OPTIONS)
    optimizer.build([large, small])
    step = tf.function(lambda: optimizer.apply([tf.fill(v.shape, g) for v in (large, small)]))
    for _ in range(7):
        step()
    for v in (large, small):
        expected = core([np.full(v.shape, g)] * 7, start=start[:, : v.shape[1]], **OPTIONS)
        np.testing.assert_array_equal(values(v), expected)
    compiled = [node for node in step.get_concrete_function().graph.as_graph_def().node if "PartitionedCall" in node.op]
    assert len(compiled) == xla


def test_variables_of_both_kinds():
    ours, theirs = keras.Variable(np.float32([1.0, 2.0, 3.0])), tf.Variable([1.0, 2.0, 3.0])
    optimizer = AdaBelief(0.125)
    optimizer.apply_gradients([(tf.constant(G[0]), ours), (tf.constant(G[0]), theirs)])
    np.testing.assert_array_equal(values(ours), theirs.numpy())
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply_gradients([(tf.constant(G[0]), ours), (None, theirs)])


def slices(values, indices, shape=(3, 2)):
    return tf.IndexedSlices(tf.constant(values), tf.constant(indices), tf.constant(shape))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clipnorm": 1.0},
        {"global_clipnorm": 1.0},
        {"gradient_accumulation_steps": 2},
        {"loss_scale_factor": 4.0},
        {"weight_decay": 0.5, "use_ema": True},
    ],
)
@pytest.mark.parametrize("loop", LOOPS)
def test_slices_are_their_dense_gradient(loop, options):
    """Repeated indices add up first, and every row steps."""
    dense = np.float32([[0, 0], [3, 5], [0, 0]])
    sparse = slices([[1.0, 2.0], [2.0, 3.0]], [1, 1])
    if loop == "eager":  # as Keras' own tests have them, and as `tf.gather` on a resource has them
        sparse = tf.IndexedSlices(sparse.values, (1, 1))
    pair = [keras.Variable(np.ones((3, 2), np.float32)) for _ in range(2)]
    for g, v in zip((sparse, tf.constant(dense)), pair, strict=True):
        optimizer = AdaBelief(0.125, **options)
        optimizer.build([v])
        step = LOOPS[loop](lambda optimizer=optimizer, g=g: optimizer.apply([g]))
        for _ in range(2):
            step()
        optimizer.apply([tf.constant(dense[::-1])])
    np.testing.assert_array_equal(*map(values, pair))
    assert (values(pair[0]) != 1).any()


def test_slices_of_an_embedding():
    model = keras.Sequential(
        [keras.layers.Input((3,), dtype="int32"), keras.layers.Embedding(7, 4), keras.layers.Flatten()]
    )
    (table,), ids = model.trainable_variables, np.array([[1, 1, 5]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(ids) ** 2)
    (gradient,) = tape.gradient(loss, [table.value])
    assert isinstance(gradient, tf.IndexedSlices)
    expected = core([tf.convert_to_tensor(gradient).numpy()], start=values(table))
    AdaBelief(0.125).apply([gradient], [table])
    np.testing.assert_array_equal(values(table), expected)


def test_slices_of_another_width():
    with pytest.raises(ValueError, match=r"Invalid gradient of 'w': shape \(3, 3\) \(expected \(3, 2\)"):
        AdaBelief().apply([slices([[1.0, 2.0, 3.0]], [1], (3, 3))], [keras.Variable(np.ones((3, 2)), name="w")])


@pytest.fixture(scope="module")
def strategy():
    """One for all: TensorFlow numbers collective operations anew in each, and takes them for those of the last."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.mark.parametrize("how", ["eager", "graph", "graph, rule by xla"])
@pytest.mark.parametrize(
    "options",
    [OPTIONS, {"use_ema": True, "ema_overwrite_frequency": 2}, {"gradient_accumulation_steps": 2}, {"clipnorm": 2.0}],
)
def test_replicas_end_with_the_bits_of_one(strategy, options, how):
    """Two replicas step by the sum of their gradients: here each has half of it."""
    if how != "eager" and ("ema_overwrite_frequency" in options or "gradient_accumulation_steps" in options):
        pytest.skip("Keras merges replicas inside a tf.cond there, which TensorFlow refuses")
    with strategy.scope():
        v, optimizer = keras.Variable(np.float32([1.0, 2.0, 3.0])), AdaBelief(0.125, **options)
        optimizer.build([v])
    # Keras clips the gradient of a replica, and accumulates it, before they are summed.
    grads = [tf.clip_by_norm(g, 2.0).numpy() for g in G] if "clipnorm" in options else [g / 2 for g in G]
    grads = [*grads, grads[0]]

    def step(g):
        strategy.run(lambda: optimizer.apply([tf.identity(g)], [v]))  # made in the replica, as a gradient is

    step = LOOPS[how](step)
    for g in grads:
        step(tf.constant(g))
    expected = run([2 * g for g in grads], **{k: x for k, x in options.items() if k != "clipnorm"})[1]
    for replica in strategy.experimental_local_results(v.value):
        np.testing.assert_array_equal(replica.numpy(), values(expected))


def test_replicas_exchange_slices(strategy):
    with strategy.scope():
        table, optimizer = keras.Variable(np.ones((3, 2), np.float32)), AdaBelief(0.125)
        optimizer.build([table])

    @tf.function
    def step():
        strategy.run(lambda: optimizer.apply([slices([[1.5, 2.5]], [1])], [table]))

    step()
    np.testing.assert_array_equal(values(table), core([[[0, 0], [3, 5], [0, 0]]], start=np.ones((3, 2))))


def test_replicas_of_a_variable_of_tensorflow(strategy):
    with strategy.scope():
        v, optimizer = tf.Variable([1.0, 2.0, 3.0]), AdaBelief(0.125, **OPTIONS)
    for g in G:
        strategy.run(lambda g=g: optimizer.apply_gradients([(tf.constant(g / 2), v)]))
    np.testing.assert_array_equal(v.numpy(), core(G, **OPTIONS))


def test_fit_on_replicas(strategy, make_model, data):
    with strategy.scope():
        model = make_model(AdaBelief(0.05, weight_decay=1e-3))
    first = model.evaluate(*data, verbose=0)
    model.fit(*data, epochs=15, batch_size=8, verbose=0)
    assert model.evaluate(*data, verbose=0) < 0.5 * first
