"""`update_clip`: without it a step grows where g - m goes to 0, and with it no step is longer than lr·k·update_clip."""

from dataclasses import replace

import numpy as np
import pytest

from adabelief_core import AdaBelief, Hyperparameters, coefficients, step_scalars, update
from adabelief_core.parity import DTYPES, Problem, Reference, compare, covering
from adabelief_core.portable import Snapshot, restore, snapshot

KERNELS = ["readable", "numpy", "numba"]
STEPS = 3000
RNG = np.random.default_rng(0)
CASES = {
    "constant": ({"betas": (0.9, 0.99)}, lambda: np.ones(4)),
    # Whatever points one way for long is ±1 once each element is clipped.
    "clipped by element": ({"betas": (0.9, 0.99)}, lambda: np.clip(3 + 0.4 * RNG.standard_normal(4), -1, 1)),
    "no momentum": ({"betas": (0.0, 0.99)}, lambda: RNG.standard_normal(4)),
    "rectified": ({"betas": (0.9, 0.99), "rectify": True}, lambda: np.ones(4)),
    "nesterov": ({"betas": (0.9, 0.99), "nesterov": True}, lambda: np.ones(4)),
}
"""Options, and what gives the gradients, of the cases that blow up."""


def lengths(case, kernel=None, dtype=np.float64, **options):
    """The longest element of each step, with a learning rate of 1."""
    given, grad = CASES[case]
    params = {"w": np.zeros(4, dtype)}
    optimizer = AdaBelief(params, lr=1.0, kernel=kernel, **given, **options)
    found = []
    for _ in range(STEPS):
        params["w"][:] = 0
        optimizer.step({"w": grad().astype(dtype)})
        found.append(np.abs(params["w"]).max())
    return np.array(found)


@pytest.mark.parametrize("case", CASES)
def test_without_it_the_step_grows_without_bound(case):
    found = lengths(case)
    assert np.isfinite(found).all()
    assert found[-100:].max() > 1e6


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_with_it_no_step_is_longer_than_k_times_the_bound(case, dtype, kernel):
    found = lengths(case, kernel, dtype, update_clip=2.0)
    h = Hyperparameters(**CASES[case][0])
    bounds = np.array([step_scalars(np.float64(t), h).scale for t in range(1, STEPS + 1)]) * 2.0
    # k is rounded once, and so is its product with the bound.
    assert (found <= bounds * (1 + 2 * np.finfo(dtype).eps)).all()
    assert (found[-100:] >= bounds[-100:] * 0.999).mean() > 0.5
    assert bounds[-1] == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize("beta1", [0.5, 0.9])
def test_the_standard_deviation_of_the_direction_of_noise(beta1):
    """What docs/algorithm.md says of it: √((1-β1)/2)/β1."""
    params = {"w": np.zeros(10_000)}
    optimizer = AdaBelief(params, lr=1.0, betas=(beta1, 0.999))
    for _ in range(1000):
        params["w"][:] = 0
        optimizer.step({"w": RNG.standard_normal(10_000)})
    assert params["w"].std() == pytest.approx(np.sqrt((1 - beta1) / 2) / beta1, rel=0.05)


def test_the_bound_comes_before_the_bias_correction():
    """At the first step u is 0.1 g/(0.9 |g|), and k is 10."""
    for bound, length in ((None, 10 / 9), (0.2, 10 / 9), (0.1, 1.0), (0.01, 0.1)):
        params = {"w": np.zeros(2)}
        AdaBelief(params, lr=1.0, update_clip=bound).step({"w": np.array([3.0, -5.0])})
        np.testing.assert_allclose(params["w"], [-length, length], rtol=1e-12)


def test_decay_is_not_bounded():
    params = {"w": np.full(1, 100.0)}
    AdaBelief(params, lr=1.0, weight_decay=0.5, update_clip=0.01).step({"w": np.ones(1)})
    assert params["w"][0] == pytest.approx(100 - 50 - 0.1, rel=1e-12)


def test_it_bounds_the_steps_of_rectification_that_divide_by_nothing():
    """While the variance is unknown the direction is m, which a large gradient makes large."""
    params = {"w": np.zeros(2)}
    AdaBelief(params, lr=1.0, rectify=True, update_clip=0.5).step({"w": np.array([1e6, 1.0])})
    np.testing.assert_allclose(params["w"], [-5.0, -1.0], rtol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex64])
def test_nan_stays_nan_and_infinity_becomes_the_bound(kernel, dtype):
    params = {"w": np.zeros(4, dtype)}
    optimizer = AdaBelief(params, lr=1.0, kernel=kernel, rectify=True, update_clip=0.5)
    with np.errstate(invalid="ignore"):
        optimizer.step({"w": np.array([np.nan, np.inf, -np.inf, 1.0], dtype)})
    w = params["w"].real
    assert np.isnan(w[0])
    np.testing.assert_allclose(w[1:], [-5.0, 5.0, -1.0], rtol=1e-3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_complex_direction_is_bounded_part_by_part(kernel):
    params = {"w": np.zeros(1, np.complex128)}
    AdaBelief(params, lr=1.0, kernel=kernel, rectify=True, update_clip=0.5).step({"w": np.array([100 - 1j])})
    assert params["w"][0] == pytest.approx(-5 + 1j)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_bound_that_nothing_reaches_changes_no_bit(kernel, dtype):
    """The quotient is what it is without: so is `None`, which runs no line of it."""
    problem = Problem("", dtype, {"weight_decay": 0.1, "amsgrad": True})
    free, far = ({name: p.copy() for name, p in problem.params().items()} for _ in range(2))
    options = {"lr": problem.lr, "kernel": kernel, **problem.options}
    a, b = AdaBelief(free, **options, update_clip=None), AdaBelief(far, **options, update_clip=1e38)
    for grads in problem.grads():
        a.step(grads)
        b.step(grads)
    for name in free:
        assert compare(free[name], far[name]).count == 0, name


def test_none_is_no_line_of_the_rule():
    class Namespace:
        abs, maximum, where, sqrt = np.abs, np.maximum, np.where, np.sqrt
        zeros_like, ones_like = np.zeros_like, np.ones_like

    h, x = Hyperparameters(), np.ones(2)
    update(x, x, x, x, x, coefficients(h, 1, "float64"), h.variant, xp=Namespace)
    h = Hyperparameters(update_clip=1.0)
    with pytest.raises(AttributeError, match="clip"):
        update(x, x, x, x, x, coefficients(h, 1, "float64"), h.variant, xp=Namespace)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bound_is_rounded_once(dtype):
    c = coefficients(Hyperparameters(update_clip=0.1), 1, dtype)
    assert c.update_clip == np.dtype(dtype).type(0.1)
    assert coefficients(Hyperparameters(), 1, dtype).update_clip == np.inf


@pytest.mark.parametrize("dtype", DTYPES)
def test_parity_is_tested_where_it_bites_in_some_elements_and_not_in_others(dtype):
    """With every other option: in each problem that has a bound, it shortens some steps, and leaves others."""
    bounded = [problem for problem in covering(dtype, tensors=("odd", "long")) if problem.h.update_clip]
    assert len(bounded) >= 5
    for problem in bounded:
        options = {key: x for key, x in problem.options.items() if key != "update_clip"}
        with_it, without = Reference(problem), Reference(replace(problem, options=options))
        bitten = spared = 0
        for grads in problem.grads():
            for run in (with_it, without):
                run.step(grads)
            for name, p in with_it._p.items():
                other = without._p[name]
                bitten, spared = bitten + int((p != other).sum()), spared + int((p == other).sum())
                without._p[name] = p.copy()  # each step from one parameter
        assert bitten > 0, problem.name
        assert spared > 0, problem.name


@pytest.mark.parametrize("update_clip", [None, 0.25])
def test_a_snapshot_keeps_it(tmp_path, update_clip):
    optimizer = AdaBelief({"w": np.ones(3)}, lr=0.1, update_clip=update_clip)
    optimizer.step({"w": np.ones(3)})
    snapshot(optimizer).save(tmp_path / "run.safetensors")
    taken = Snapshot.load(tmp_path / "run.safetensors")
    assert taken.hyperparameters.update_clip == update_clip
    restore(AdaBelief({"w": np.zeros(3)}, update_clip=update_clip), taken)
    with pytest.raises(ValueError, match=rf"Invalid update_clip: 0\.5 \(expected {update_clip}, with which"):
        restore(AdaBelief({"w": np.zeros(3)}, update_clip=0.5), taken)
