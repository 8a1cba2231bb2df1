"""The same bits as the core, in every mode of the active backend."""

import keras
import numpy as np
import pytest

from adabelief_core import coefficients, spelt, update
from adabelief_core.parity import DTYPES, Problem, check, covering, quick
from adabelief_tf import AdaBelief
from adabelief_tf._optimizer import SPELLING
from adabelief_tf._parity import adapter

MODES = {mode.name: mode for mode in adapter.modes()}
PAIRS = [(name, dtype) for name, mode in MODES.items() for dtype in mode.dtypes]


@pytest.mark.parametrize(("name", "dtype"), PAIRS)
def test_bits(name, dtype):
    mode = MODES[name]
    problems = quick(dtype)
    if adapter.framework.endswith("torch"):
        problems += covering(dtype)
    elif dtype == "float32" and not mode.slow:
        # Each pair of options, on the tensors that differ most: these steps are many operations.
        problems += covering(dtype, tensors=("scalar", "empty", "spread", "nonfinite"))
    results = {(problem.name, problem.tensors): check(mode, problem) for problem in problems}
    assert {name: result for name, result in results.items() if result.differing} == {}


@pytest.mark.parametrize(
    "options", [{"amsgrad": True}, {"weight_decay": 0.1, "weight_decouple": False}, {"maximize": True}]
)
def test_bits_of_compiled_options(options):
    """What `quick` leaves out, or hides behind another option."""
    problem = Problem("", "float32", options, steps=8)
    assert check(list(MODES.values())[-1], problem).differing == 0


@pytest.mark.parametrize("dtype", MODES["eager"].dtypes)
def test_bits_of_graphs_where_xla_compiles_the_rule(dtype, only, monkeypatch):
    only("tensorflow")
    monkeypatch.setattr("adabelief_tf._backend_tensorflow.LEAST", 0)
    results = {problem.name: check(MODES["graph"], problem) for problem in quick(dtype)}
    assert {name: result for name, result in results.items() if result.differing} == {}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ten_thousand_steps(dtype, backend):
    mode = MODES["eager" if backend == "torch" else "jit"]
    problem = quick(dtype, steps=10_000, tensors=("odd",))[1 if dtype == "float32" else 0]
    assert check(mode, problem).differing == 0


def test_every_real_dtype_is_promised_in_bits():
    for mode in MODES.values():
        assert mode.ulps == 0
        assert set(mode.dtypes) == set(DTYPES) - {"complex64"}  # Keras has no complex variables


@pytest.mark.parametrize("name", MODES)
def test_a_late_step_has_its_own_scalars(name):
    """The step count goes far beyond what float32 counts."""
    problem = Problem("", "float32", {"betas": (0.9, 0.9999999), "rectify": True}, steps=1, tensors=("odd",))
    run = MODES[name].start(problem)
    run._optimizer._iterations.assign(2**25 + 1)
    (grads,) = problem.grads()
    run.step(grads)
    p, zero = problem.params()["odd"], np.zeros((7, 13), np.float32)
    c = coefficients(problem.h, 2**25 + 2, "float32")
    delta, *_ = update(p, grads["odd"], zero, zero, zero, c, problem.h.variant)
    np.testing.assert_array_equal(run.state().p["odd"], p + delta)


def test_half_precision_keeps_its_moments_in_float32():
    variable = keras.Variable(np.ones(3), dtype="bfloat16")
    optimizer = AdaBelief(amsgrad=True)
    optimizer.build([variable])
    state = [v for v in optimizer.variables if v.shape == (3,)]
    assert [v.dtype for v in state] == ["float32"] * 3
    assert [any(v.path.endswith(name) for v in state) for name in ("_momentum", "_belief", "_max_belief")] == [True] * 3


def test_options_are_spelt_as_in_keras():
    named = spelt({"betas": (0.5, 0.6), "eps": 1.0, "eps_root": 2.0, "rectify": True}, SPELLING)
    assert named == {"beta_1": 0.5, "beta_2": 0.6, "epsilon": 1.0, "epsilon_root": 2.0, "rectify": True}
