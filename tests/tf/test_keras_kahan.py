"""The compensated sum of the variables, in every mode of the active backend."""

import keras
import numpy as np
import pytest
from keras import ops

from adabelief_core.parity import Problem, check, compare
from adabelief_tf import AdaBelief
from adabelief_tf._parity import adapter

MODES = {mode.name: mode for mode in adapter.modes()}
HALF = ["bfloat16", "float16"]


def normals(seed, size=7):
    return np.random.default_rng(seed).standard_normal(size, np.float32)


@pytest.fixture
def bfloat16():
    """All that is made is bfloat16."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("bfloat16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("name", MODES)
def test_bfloat16_follows_float32(name):
    """Where plain rounding freezes: a variable of 1 and a learning rate of 1e-3."""
    steps, trails = 200, []
    for dtype, options in (("bfloat16", {}), ("bfloat16", {"kahan_sum": True}), ("float32", {})):
        problem = Problem("", dtype, options, lr=1e-3, tensors=("constant",))
        run, trail = MODES[name].start(problem), []
        run._variables["constant"].assign(np.ones(33))
        for seed in range(steps):
            g = (normals(seed, size=33) - np.float32(0.5)).astype(problem.params()["constant"].dtype)
            run.step({"constant": g})
            trail.append(run.state().p["constant"])
        trails.append(np.stack(trail))
    plain, ours, exact = trails
    assert (plain[-1] == 1).mean() > 0.9
    assert (exact[-1] > 1.03).all()
    rounded = exact.astype(ours.dtype)
    assert compare(ours, rounded).ulps <= 1
    assert compare(plain, rounded).ulps > 5


@pytest.mark.parametrize("dtype", [*HALF, "float32"])
@pytest.mark.parametrize("name", MODES)
def test_bits(name, dtype):
    options = {"kahan_sum": True}
    problem = Problem("", dtype, options, steps=6, lr=2.0**-20, tensors=("scalar", "spread", "nonfinite"))
    assert check(MODES[name], problem).differing == 0


def test_the_state_comes_last_and_in_float32():
    optimizer = AdaBelief(amsgrad=True, kahan_sum=True)
    optimizer.build([keras.Variable(np.ones(3), dtype="bfloat16", name="w")])
    names = [v.path.rsplit("/")[-1] for v in optimizer.variables]
    assert names[-4:] == ["w_momentum", "w_belief", "w_max_belief", "w_kahan_comp"]
    assert (optimizer.variables[-1].dtype, tuple(optimizer.variables[-1].shape)) == ("float32", (3,))


def test_none_is_off():
    results = []
    for value in (None, False, True):
        variable = keras.Variable(np.ones(7), dtype="bfloat16")
        optimizer = AdaBelief(2.0**-7, kahan_sum=value)
        for seed in range(5):
            optimizer.apply([ops.convert_to_tensor(normals(seed), "bfloat16")], [variable])
        results.append(ops.convert_to_numpy(ops.cast(variable.value, "float32")))
        assert hasattr(optimizer, "_kahan_comps") is bool(value)
    assert compare(results[0], results[1]).count == 0
    assert compare(results[0], results[2]).count > 0


@pytest.mark.usefixtures("bfloat16")
def test_a_saved_model_of_bfloat16_goes_on(make_model, data, tmp_path):
    """Six steps are three steps, a file, and three more: bit for bit, k included."""
    straight, stopped = (make_model(AdaBelief(1e-3, kahan_sum=True)) for _ in range(2))
    for _ in range(3):
        straight.train_on_batch(*data)
        stopped.train_on_batch(*data)
    stopped.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.kahan_sum is True
    for _ in range(3):
        straight.train_on_batch(*data)
        loaded.train_on_batch(*data)
    pairs = zip(straight.optimizer.variables, loaded.optimizer.variables, strict=True)
    for a, b in [*pairs, *zip(straight.trainable_variables, loaded.trainable_variables, strict=True)]:
        assert compare(*(ops.convert_to_numpy(ops.cast(v.value, "float32")) for v in (a, b))).count == 0
    assert all(ops.convert_to_numpy(k.value).any() for k in loaded.optimizer._kahan_comps)


@pytest.mark.parametrize("dtype", [*HALF, "float32"])
def test_roundings_pass_through_integers(backend, dtype):
    """On GPUs, XLA drops a cast to half precision and back."""
    if backend == "torch":
        pytest.skip("about XLA")
    variable = keras.Variable(np.ones(7), dtype=dtype)
    optimizer = AdaBelief(kahan_sum=True)
    optimizer.build([variable])
    gradient = ops.convert_to_tensor(normals(0), dtype)
    if backend == "jax":
        import jax

        state = [v.value for v in optimizer.variables]
        text = jax.jit(optimizer.stateless_apply).lower(state, [gradient], [variable.value]).as_text()
        found = text.count("bitcast_convert")
    else:
        import tensorflow as tf

        apply = tf.function(lambda g: optimizer.apply([g], [variable]), jit_compile=True)
        found = apply.experimental_get_compiler_ir(gradient)(stage="hlo").count(" bitcast-convert(")
    assert (found >= 2) == (dtype in HALF)


def test_torch_tensors_off_the_cpu(only, monkeypatch):
    """The path for other devices, on a CPU, in steps that divide by no √: the core's bits."""
    only("torch")
    from adabelief_tf import _backend_torch

    problem = Problem("", "bfloat16", {"kahan_sum": True, "rectify": True, "betas": (0.9, 0.6)}, lr=2.0**-10)
    monkeypatch.setattr(_backend_torch, "_on_cpu", lambda variables: False)
    assert check(MODES["eager"], problem).differing == 0
