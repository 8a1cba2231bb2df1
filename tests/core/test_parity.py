"""The kernels against the rule, bit for bit; and the harness itself: every way it must be able to fail."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from adabelief_core.parity import DTYPES, Difference, Mode, Problem, check, compare, covering, quick
from adabelief_core.parity._numpy import adapter
from adabelief_core.parity._problems import _FACTORS, _covering_rows

MODES = {mode.name: mode for mode in adapter.modes()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
def test_every_pair_of_options(mode, dtype):
    for problem in covering(dtype):
        result = check(MODES[mode], problem)
        assert (result.differing, result.ulps, result.first) == (0, 0, ""), problem.name
        assert result.elements > 4000


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["blocked", "numba"])
def test_ten_thousand_steps(mode, dtype):
    wide = dtype == "float32"
    problems = quick(dtype, steps=10_000, tensors=("odd", "constant") if wide else ("odd",))
    for problem in problems if wide else problems[1:]:
        assert check(MODES[mode], problem).differing == 0, problem.name


# The harness can fail


class Tampered:
    """A run with one element of one array changed to the next float at one step."""

    def __init__(self, run, kind, name, at_step):
        self.run, self.kind, self.name, self.left = run, kind, name, at_step

    def step(self, grads):
        self.run.step(grads)
        self.left -= 1

    def state(self):
        state = self.run.state()
        if self.left == 0:
            arrays = {name: x.copy() for name, x in getattr(state, self.kind).items()}
            x = arrays[self.name]
            flat = x.reshape(-1) if x.ndim else x[np.newaxis]
            flat[-1:] = np.nextafter(flat[-1:], ml_dtypes.finfo(x.dtype).max)
            setattr(state, self.kind, arrays)
        return state


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["p", "m", "s", "v"])
@pytest.mark.parametrize(("name", "step"), [("scalar", 1), ("long", 12), ("nonfinite", 5)])
def test_one_ulp_in_one_element_at_one_step_is_seen(kind, name, step, dtype):
    problem = Problem("amsgrad", dtype, {"amsgrad": True})
    honest = MODES["blocked"]
    mode = Mode("tampered", lambda problem: Tampered(honest.start(problem), kind, name, step))
    result = check(mode, problem)
    assert (result.differing, result.ulps) == (1, 1)
    assert result.first == f"step {step}, {kind} of {name!r}"
    assert check(honest, problem).differing == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"betas": (0.9, 0.9990001)},
        {"betas": (0.9000001, 0.999)},
        {"eps": 1e-9},
        {"eps_root": 2e-16},
        {"amsgrad": True},
        {"nesterov": True},
        {"maximize": True},
        {"rectify": True},
        {"weight_decay": 1e-4},
        {"update_clip": 0.15},
    ],
    ids=str,
)
def test_a_wrong_hyperparameter_is_seen(wrong):
    right = Problem("right", "float32", {})
    mode = Mode("wrong", lambda problem: MODES["blocked"].start(Problem("wrong", "float32", wrong)))
    assert check(mode, right).differing > 0


def test_a_wrong_learning_rate_is_seen():
    right = Problem("right", "float32", {})
    wrong = Problem("wrong", "float32", {}, lr=float(np.nextafter(np.float32(right.lr), np.float32(1))))
    assert check(Mode("wrong", lambda problem: MODES["blocked"].start(wrong)), right).differing > 0


def test_rounding_the_update_is_seen():
    """Optax's convention differs from the core's in half precision, and in nothing else."""
    half, single = Problem("half", "bfloat16", {}), Problem("single", "float32", {})
    mode = Mode("rounds", MODES["blocked"].start, rounds_update=True)
    assert check(mode, half).differing > 0
    assert check(mode, single).differing == 0


def test_missing_arrays_are_an_error():
    class Forgetful(Tampered):
        def state(self):
            state = self.run.state()
            state.m = {}
            return state

    mode = Mode("forgetful", lambda problem: Forgetful(MODES["blocked"].start(problem), "m", "odd", 1))
    with pytest.raises(ValueError, match="m has"):
        check(mode, Problem("p", "float32", {}))


def test_half_precision_moments_are_an_error():
    class Narrow(Tampered):
        def state(self):
            state = self.run.state()
            state.s = {name: np.zeros(x.shape, np.float16) for name, x in state.s.items()}
            return state

    mode = Mode("narrow", lambda problem: Narrow(MODES["blocked"].start(problem), "s", "odd", 1))
    with pytest.raises(ValueError, match="cannot compare float16"):
        check(mode, Problem("p", "float32", {}))


FLOATS = [np.float16, np.float32, np.float64, ml_dtypes.bfloat16]


@pytest.mark.parametrize("dtype", FLOATS)
def test_compare_counts_ulps(dtype):
    one = np.ones(3, dtype)
    up = np.nextafter(np.nextafter(one, dtype(2)), dtype(2))
    assert compare(one, up) == Difference(3, 2)
    zero = np.zeros(1, dtype)
    assert compare(zero, -zero) == Difference(1, 1)
    least = np.nextafter(zero, dtype(1))
    assert compare(-least, least) == Difference(1, 2)
    nan = np.full(1, np.nan, dtype)
    assert compare(nan, -nan) == Difference(0, 0)
    assert compare(nan, zero) == Difference(1, 2**63 - 1)
    assert compare(np.array(1, dtype), np.array(1, dtype)).count == 0


@given(hnp.arrays(np.float32, 20), st.integers(0, 19))
def test_compare_sees_any_single_bit(x, index):
    y = x.copy()
    y.view(np.uint32)[index] ^= 1
    both_nan = np.isnan(x[index]) and np.isnan(y[index])
    assert compare(x, y).count == (0 if both_nan else 1)


def test_compare_refuses_other_shapes_and_dtypes():
    with pytest.raises(ValueError, match="cannot compare"):
        compare(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="cannot compare"):
        compare(np.ones(2), np.ones(2, np.float32))


def test_compare_sees_imaginary_parts():
    assert compare(np.array([1 + 1j]), np.array([1 + 2j])).count == 1


# The table of problems is what it says


def test_covering_has_every_pair_of_values():
    rows = _covering_rows()
    for (i, a), (j, b) in itertools.combinations(enumerate(_FACTORS.values()), 2):
        assert {(row[i], row[j]) for row in rows} == set(itertools.product(range(len(a)), range(len(b))))


def test_streams_repeat_and_are_what_they_are_called():
    problem = Problem("p", "float32", {})
    first, second = list(problem.grads()), list(problem.grads())
    for a, b in zip(first, second, strict=True):
        for name in a:
            assert compare(a[name], b[name]).count == 0
    assert not problem.params()["strided"].flags.c_contiguous
    assert problem.params()["empty"].size == 0
    assert problem.params()["scalar"].shape == ()
    assert np.isnan(np.stack([g["nonfinite"] for g in first])).any()
    assert np.isinf(np.stack([g["nonfinite"] for g in first])).any()
    assert not np.stack([g["zero"] for g in first]).any()
    assert len({float(g["constant"][0]) for g in first}) == 1
