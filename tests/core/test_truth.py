"""The rule against the paper's formulas, evaluated with 50 digits by mpmath: a second, independent copy."""

import mpmath
import numpy as np
import pytest
from mpmath import mpf, sqrt

from adabelief_core import AdaBelief, coefficients

STEPS = 1000


@pytest.fixture(autouse=True)
def fifty_digits():
    with mpmath.workdps(50):
        yield


def rectification(t, beta2):
    limit = 2 / (1 - beta2) - 1
    rho = limit - 2 * t * beta2**t / (1 - beta2**t)
    if rho < 5:
        return None
    return sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))


def paper(p, grads, *, lr, betas, eps, eps_root=None, decay=0, kind="decoupled", rectify=False, sgd=True, amsgrad=False,
          nesterov=False):  # fmt: skip
    """Algorithm 2 as printed, with the options as their own papers have them."""
    p, lr, eps, decay = mpf(p), mpf(lr), mpf(eps), mpf(decay)
    eps_root = eps if eps_root is None else mpf(eps_root)
    beta1, beta2 = map(mpf, betas)
    m = s = v = mpf(0)
    for t, gradient in enumerate(map(mpf, grads), 1):
        g = gradient + decay * p if kind == "coupled" else gradient
        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * (g - m) ** 2 + eps_root
        v = max(v, s) if amsgrad else s
        first = m / (1 - beta1**t)
        if nesterov:
            first = beta1 * m / (1 - beta1 ** (t + 1)) + (1 - beta1) * g / (1 - beta1**t)
        if not rectify:
            u = first / (sqrt(v / (1 - beta2**t)) + eps)
        elif (r := rectification(t, beta2)) is not None:
            u = r * first / ((sqrt(v) + eps) / sqrt(1 - beta2**t))
        else:
            u = first if sgd else mpf(0)
        shrink = {"decoupled": lr * decay, "fixed": decay, "coupled": 0}[kind] * p
        p = p - lr * u - shrink
    return p


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"eps": 1e-8, "eps_root": 1e-12},
        {"decay": 0.1},
        {"decay": 0.1, "kind": "coupled"},
        {"decay": 0.001, "kind": "fixed"},
        {"amsgrad": True},
        {"nesterov": True},
        {"rectify": True},
        {"rectify": True, "sgd": False},
        {"rectify": True, "amsgrad": True, "nesterov": True, "decay": 0.1},
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
    settings = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-16, **options}
    expected = paper(0.5, grads, **settings)

    kind = settings.pop("kind", "decoupled")
    params = {"p": np.array([0.5])}
    optimizer = AdaBelief(
        params,
        weight_decay=settings.pop("decay", 0.0),
        weight_decouple=kind != "coupled",
        fixed_decay=kind == "fixed",
        degenerated_to_sgd=settings.pop("sgd", True),
        **settings,
    )
    for g in grads:
        optimizer.step({"p": np.array([g])})
    assert abs(params["p"][0] - expected) <= 1e-12 * max(1, abs(expected))
    assert params["p"][0] != 0.5


def test_the_comparison_can_fail():
    grads = np.random.default_rng(7).standard_normal(STEPS)
    settings = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-16}
    assert abs(paper(0.5, grads, **settings) - paper(0.5, grads, **{**settings, "eps": 1e-6})) > 1e-12


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
