"""The rule against the paper's formulas, evaluated with 50 digits: a second, independent copy."""

from decimal import Decimal

import numpy as np
import pytest

from adabelief_core import AdaBelief, coefficients
from adabelief_core.parity import paper

STEPS = 1000


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"eps": 1e-8, "eps_root": 1e-12},
        {"weight_decay": 0.1},
        {"weight_decay": 0.1, "decay": "coupled"},
        {"weight_decay": 0.001, "decay": "fixed"},
        {"amsgrad": True},
        {"nesterov": True},
        {"rectify": True},
        {"rectify": True, "degenerated_to_sgd": False},
        {"rectify": True, "amsgrad": True, "nesterov": True, "weight_decay": 0.1},
        {"rectify": True, "betas": (0.9, 0.6)},
        {"rectify": True, "betas": (0.9, 0.7)},
        {"betas": (0.0, 0.999)},
        {"betas": (0.9, 0.0)},
        {"betas": (0.5, 0.9999), "rectify": True},
    ],
    ids=str,
)
def test_a_thousand_steps_agree_to_1e_12(options):
    rng = np.random.default_rng(7)
    grads = rng.standard_normal(STEPS)
    expected = paper(0.5, grads, **options)[-1]
    decay = options.get("decay", "decoupled")
    params = {"p": np.array([0.5])}
    optimizer = AdaBelief(
        params,
        weight_decouple=decay != "coupled",
        fixed_decay=decay == "fixed",
        **{name: value for name, value in options.items() if name != "decay"},
    )
    for g in grads:
        optimizer.step({"p": np.array([g])})
    assert abs(Decimal(params["p"][0]) - expected) <= Decimal("1e-12") * max(1, abs(expected))
    assert params["p"][0] != 0.5


def test_the_comparison_can_fail():
    grads = np.random.default_rng(7).standard_normal(STEPS)
    assert abs(paper(0.5, grads)[-1] - paper(0.5, grads, eps=1e-6)[-1]) > 1e-12


def test_more_digits_change_nothing_that_is_compared():
    grads = np.random.default_rng(7).standard_normal(STEPS)
    assert abs(paper(0.5, grads)[-1] - paper(0.5, grads, digits=80)[-1]) < Decimal("1e-40")


def test_eps_root_accumulates_in_s():
    """Without surprise, s is eps_root times the geometric sum, not eps_root."""
    optimizer = AdaBelief({"p": np.zeros(1)}, eps=1e-8, eps_root=1e-3, betas=(0.9, 0.5))
    for _ in range(3):
        optimizer.step({"p": np.zeros(1)})
    assert optimizer.state["p"].s[0] == pytest.approx(1e-3 * (1 + 0.5 + 0.25), rel=1e-15)


def test_coefficients_are_rounded_once():
    from adabelief_core import Hyperparameters, step_scalars

    h = Hyperparameters()
    for t in (1, 2, 10, 1000, 10**6):
        exact = step_scalars(np.float64(t), h)
        c = coefficients(h, t, "float32")
        assert c.scale == np.float32(exact.scale)
        assert c.belief_scale == np.float32(exact.belief_scale)
        assert c.rest2 == np.float32(1 - 0.999)
        assert {type(x) for x in c[:-1]} == {np.float32}
