"""Files of Keras: read as a run, and written from one."""

import keras
import numpy as np
import pytest

from adabelief_core.portable import Snapshot
from adabelief_core.portable._convert import Settings
from adabelief_tf import AdaBelief, snapshot
from adabelief_tf._file import read, write


def trained(count=2, optimizer=None):
    keras.utils.set_random_seed(0)
    stem, head = keras.layers.Dense(4, name="stem"), keras.layers.Dense(2, name="head")
    model = keras.Sequential([keras.layers.Input((3,)), stem, head], name="net")
    model.compile(optimizer=optimizer or AdaBelief(0.25, amsgrad=True), loss="mse")
    if count:
        model.fit(np.ones((count, 3), "float32"), np.zeros((count, 2), "float32"), batch_size=1, verbose=0)
    return model


def assert_same(ours, theirs):
    assert list(ours.entries) == list(theirs.entries)
    for name, one in ours.entries.items():
        other = theirs.entries[name]
        assert (one.step, one.h) == (other.step, other.h)
        for key in "pmsv":
            np.testing.assert_array_equal(getattr(one, key), getattr(other, key))


@pytest.fixture
def architecture(tmp_path):
    trained(0).save(tmp_path / "net.keras")
    return tmp_path / "net.keras"


def test_a_model_file(tmp_path):
    model = trained()
    model.save(tmp_path / "run.keras")
    taken = read(tmp_path / "run.keras", Settings())
    assert taken.entries["head/kernel"].step == 2
    assert_same(taken, snapshot(model.optimizer, model))


def test_a_weights_file(tmp_path, architecture):
    model = trained()
    model.save_weights(tmp_path / "run.weights.h5")
    assert_same(read(tmp_path / "run.weights.h5", Settings(model=architecture)), snapshot(model.optimizer, model))


@pytest.mark.parametrize("name", ["run.keras", "run.weights.h5"])
def test_a_run_written_is_the_run_read(name, tmp_path, architecture):
    model = trained()
    taken = snapshot(model.optimizer, model)
    settings = Settings(model=architecture)
    write(taken, tmp_path / name, settings)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["net.keras", name])
    assert_same(read(tmp_path / name, settings), taken)


def test_what_is_missing_or_does_not_fit(tmp_path, architecture):
    model = trained()
    taken = snapshot(model.optimizer, model)
    with pytest.raises(ValueError, match=r"run.keras' needs a model's architecture \(--model FILE.keras\)"):
        write(taken, tmp_path / "run.keras", Settings())
    with pytest.raises(ValueError, match=r"run.weights.h5' needs a model's architecture"):
        read(tmp_path / "run.weights.h5", Settings())
    few = Snapshot({name: entry for name, entry in taken.entries.items() if name != "head/bias"})
    with pytest.raises(ValueError, match="'head/bias' of the optimizer"):
        write(few, tmp_path / "run.keras", Settings(model=architecture))
    trained(1, keras.optimizers.AdamW()).save(tmp_path / "adamw.keras")
    with pytest.raises(TypeError, match=r"expected an adabelief_tf\.AdaBelief"):
        read(tmp_path / "adamw.keras", Settings())
    assert not (tmp_path / "run.keras").exists()
