"""The tests of adabelief_tf run on the backend that KERAS_BACKEND names, TensorFlow by default."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

pytest.importorskip("keras")
with warnings.catch_warnings():
    # Frameworks warn of their own imports.
    warnings.simplefilter("ignore")
    import keras

    pytest.importorskip(keras.backend.backend())
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Two, for tf.distribute; TensorFlow takes this before its first operation alone.
        halves = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], halves)


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def backend() -> str:
    return keras.backend.backend()


@pytest.fixture
def only(backend):
    """Skip a test on the other backends."""

    def skip(name: str) -> None:
        if backend != name:
            pytest.skip(f"about the {name} backend")

    return skip


@pytest.fixture
def make_model():
    """A tiny model, the same at every call, compiled with an optimizer."""

    def make(optimizer, **options):
        keras.utils.set_random_seed(0)
        # "auto" is jit on JAX, graph on TensorFlow on a CPU, eager on PyTorch.
        layers = [keras.layers.Input((4,)), keras.layers.Dense(5, activation="tanh"), keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        model.compile(optimizer=optimizer, loss="mse", **options)
        return model

    return make


@pytest.fixture
def data():
    x = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
    return x, x.sum(axis=1, keepdims=True)
