"""The step's scalars: accuracy against 50 digits, the switch of rectification, awkward betas."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf

from adabelief_core import LAST_STEP, Hyperparameters, coefficients, step_scalars
from adabelief_core._scalars import plain_product, power_and_complement, power_table, switch_step

betas = st.floats(0, 1, exclude_max=True, allow_subnormal=False) | st.sampled_from(
    [0.0, 0.5, 0.6, 2 / 3, 0.9, 0.99, 0.999, 0.9999, 0.999999, float(np.nextafter(1, 0))]
)
steps = st.integers(1, LAST_STEP) | st.integers(1, 10_000)


@given(betas, steps)
def test_powers_are_right_to_a_few_ulps(beta, t):
    power, complement = power_and_complement(np.float64(t), power_table(beta), np, plain_product)
    with mpmath.workdps(60):
        exact = mpf(beta) ** t
        assert abs(power - exact) <= 8 * 2**-53 * exact + mpf(2) ** -1074
        assert abs(complement - (1 - exact)) <= 16 * 2**-53 * (1 - exact)


@given(betas, steps, st.booleans(), st.booleans())
def test_every_scalar_is_finite(beta, t, rectify, sgd):
    h = Hyperparameters(betas=(beta, beta), rectify=rectify, degenerated_to_sgd=sgd)
    scalars = step_scalars(np.float64(t), h)
    assert np.isfinite([scalars.scale, scalars.belief_scale, scalars.look_ahead]).all()


@pytest.mark.parametrize(
    ("beta2", "step"),
    [
        (0.999, 6),
        (0.9999, 6),
        (1 - 1e-8, 6),
        (1 - 2**-53, 6),
        (0.9, 6),
        (0.7, 10),
        (2 / 3, None),
        (0.6, None),
        (0.0, None),
    ],
)
def test_switch_step(beta2, step):
    assert switch_step(beta2) == step


@given(st.floats(0.6667, 0.99999))
def test_switch_step_is_the_first_with_rho_at_least_five(beta2):
    step = switch_step(beta2)
    with mpmath.workdps(60):
        b = mpf(beta2)

        def rho(t):
            return 2 / (1 - b) - 1 - 2 * t * b**t / (1 - b**t)

        assert step is not None
        assert rho(step) >= 5 > rho(step - 1)


@pytest.mark.parametrize("beta2", [0.999, 0.99, 0.7, 0.6, 0.0])
@pytest.mark.parametrize("sgd", [True, False])
def test_rectified_phases(beta2, sgd):
    h = Hyperparameters(betas=(0.9, beta2), rectify=True, degenerated_to_sgd=sgd)
    switch = switch_step(beta2) or LAST_STEP + 1
    for t in range(1, 40):
        scalars = step_scalars(np.float64(t), h)
        assert bool(scalars.adaptive) is (t >= switch)
        assert scalars.belief_scale == 1
        if t < switch:
            assert scalars.scale == (pytest.approx(1 / (1 - 0.9**t), rel=1e-14) if sgd else 0)


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("beta2", [0.999, 0.99, 0.7])
def test_traced_betas_take_the_same_scalars_to_a_few_ulps(beta2, rectify):
    h = Hyperparameters(betas=(0.9, beta2), rectify=rectify)
    for t in (1, 5, 6, 7, 20, 1000, 10**6):
        a = step_scalars(np.float64(t), h)
        b = step_scalars(np.float64(t), h, betas=(np.float64(0.9), np.float64(beta2)))
        assert bool(a.adaptive) == bool(b.adaptive)
        np.testing.assert_allclose(b[:3], a[:3], rtol=1e-10)


def test_nesterov_looks_one_step_ahead():
    scalars = step_scalars(np.float64(3), Hyperparameters(nesterov=True))
    assert scalars.look_ahead == pytest.approx(0.9 * (1 - 0.9**3) / (1 - 0.9**4), rel=1e-15)


def test_the_step_count_saturates():
    h = Hyperparameters()
    assert coefficients(h, LAST_STEP + 5, "float64") == coefficients(h, LAST_STEP, "float64")
