"""States in files: what fits goes on bit for bit, what does not is never taken for a state."""

import keras
import pytest
from keras_helpers import same

from adabelief_tf import AdaBelief


@pytest.fixture
def trained(make_model, data):
    """A model after two steps, of an optimizer with these options."""

    def make(optimizer):
        model = make_model(optimizer)
        for _ in range(2):
            model.train_on_batch(*data)
        return model

    return make


def built(model):
    model.optimizer.build(model.trainable_variables)
    return model


def state(model):
    return [*model.trainable_variables, *model.optimizer.variables]


def assert_same(a, b):
    for x, y in zip(state(a), state(b), strict=True):
        same(x, y)


@pytest.mark.parametrize("options", [{}, {"amsgrad": True, "use_ema": True, "gradient_accumulation_steps": 2}])
def test_weights_file(options, trained, make_model, data, tmp_path):
    model, other = trained(AdaBelief(0.05, **options)), built(make_model(AdaBelief(0.05, **options)))
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same(other, model)
    for each in (model, other):
        each.train_on_batch(*data)
    assert_same(other, model)


@pytest.mark.parametrize(
    ("saved", "loaded", "message"),
    [
        (
            {},
            {"amsgrad": True},
            r"4 momentum, 4 belief, 4 max_belief, whereas the saved state is .*4 momentum, 4 belief\.",
        ),
        # As many variables, of the same shapes.
        ({"amsgrad": True}, {"kahan_sum": True}, r"4 kahan_comp, whereas .*4 max_belief\."),
        ({"use_ema": True}, {"gradient_accumulation_steps": 2}, r"4 gradient_accumulator, .*whereas .*4 average"),
    ],
)
def test_a_state_of_other_options_is_left_aside(saved, loaded, message, trained, make_model, tmp_path):
    model, other = trained(AdaBelief(0.05, **saved)), built(make_model(AdaBelief(0.05, **loaded)))
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer 'adabelief', because.*" + message):
        other.load_weights(tmp_path / "model.weights.h5")
    assert not any(v.numpy().any() for v in other.optimizer._momentums)
    for a, b in zip(model.trainable_variables, other.trainable_variables, strict=True):
        same(a, b)


def test_a_state_of_another_optimizer_is_left_aside(trained, make_model, tmp_path):
    model, other = trained(keras.optimizers.AdamW(0.05)), built(make_model(AdaBelief(0.05)))
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.warns(UserWarning, match="whereas the saved state is another optimizer's, 10 variables"):
        other.load_weights(tmp_path / "model.weights.h5")
    assert int(other.optimizer.iterations) == 0


def test_no_adam_takes_our_state(trained, make_model, tmp_path):
    model, other = trained(AdaBelief(0.05)), built(make_model(keras.optimizers.Adam(0.05)))
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
        other.load_weights(tmp_path / "model.weights.h5")


def test_an_optimizer_that_is_not_built_says_so(trained, make_model, tmp_path):
    trained(AdaBelief(0.05)).save_weights(tmp_path / "model.weights.h5")
    with pytest.warns(UserWarning, match=r"1 learning_rate \(it has not been built yet\), whereas"):
        make_model(AdaBelief(0.05)).load_weights(tmp_path / "model.weights.h5")


def test_other_shapes_are_refused_by_name(trained, tmp_path):
    trained(AdaBelief(0.05)).save_weights(tmp_path / "model.weights.h5")
    layers = [keras.layers.Input((4,)), keras.layers.Dense(6), keras.layers.Dense(1)]
    other = keras.Sequential(layers)
    other.compile(optimizer=AdaBelief(0.05), loss="mse")
    store = {}
    trained(AdaBelief(0.05)).optimizer.save_own_variables(store)
    with pytest.raises(ValueError, match=r"kernel_momentum' was saved with shape \(4, 5\) \(expected \(4, 6\)\)"):
        built(other).optimizer.load_own_variables(store)
    assert int(other.optimizer.iterations) == 0


def test_backup_and_restore(make_model, data, tmp_path):
    """A run that breaks off in its third epoch, and is started again, ends as one that does not."""

    class Break(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def fit(model, *callbacks):
        model.fit(*data, epochs=4, batch_size=16, shuffle=False, verbose=0, callbacks=list(callbacks))
        return model

    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(make_model(AdaBelief(0.05)), backup, Break())
    again = fit(make_model(AdaBelief(0.05)), backup)
    assert int(again.optimizer.iterations) == 4
    assert_same(again, fit(make_model(AdaBelief(0.05))))


@pytest.mark.parametrize("when", ["built", "not built"])
def test_checkpoints_of_tensorflow(when, trained, make_model, data, only, tmp_path):
    only("tensorflow")
    import tensorflow as tf

    model = trained(AdaBelief(0.05, amsgrad=True))
    path = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(str(tmp_path / "checkpoint"))
    other = make_model(AdaBelief(0.05, amsgrad=True))
    if when == "built":
        built(other)
    status = tf.train.Checkpoint(model=other, optimizer=other.optimizer).restore(path)
    built(other)
    status.assert_consumed()
    assert_same(other, model)
    for each in (model, other):
        each.train_on_batch(*data)
    assert_same(other, model)


def test_a_checkpoint_of_tensorflow_that_does_not_match(trained, make_model, only, tmp_path):
    only("tensorflow")
    import tensorflow as tf

    model = trained(AdaBelief(0.05))
    path = tf.train.Checkpoint(optimizer=model.optimizer).save(str(tmp_path / "checkpoint"))
    other = built(make_model(AdaBelief(0.05, amsgrad=True)))
    with pytest.raises(AssertionError, match="max_belief"):
        tf.train.Checkpoint(optimizer=other.optimizer).restore(path).assert_existing_objects_matched()
