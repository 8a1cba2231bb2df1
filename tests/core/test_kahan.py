"""The compensated sum of the parameters: half precision follows the float32 trajectory."""

import re

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adabelief_core import AdaBelief, Hyperparameters, compensated
from adabelief_core.parity import compare

BFLOAT16, FLOAT16 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16)
STEPS = 3000
# A step of about the learning rate moves a parameter of 1 by less than half its last place: 2^-8 and 2^-11.
LR = {BFLOAT16: 1e-3, FLOAT16: 1e-4}


def gradients(kind, dtype, size=64):
    """Of kind "drift", the parameters grow, by about the learning rate a step; "noise": they wander. None meets 0."""
    rng = np.random.default_rng(1)
    for _ in range(STEPS):
        yield (rng.standard_normal(size) - (0.5 if kind == "drift" else 0.0)).astype(dtype)


def pair(dtype, **options):
    """A half-precision parameter and its float32 twin, both at 1, and their optimizers."""
    half, single = np.ones(64, dtype), np.ones(64, np.float32)
    options = {"lr": LR[dtype], **options}
    return half, single, AdaBelief({"w": half}, kahan_sum=True, **options), AdaBelief({"w": single}, **options)


def assert_follows(half, single, k, step):
    """Half precision within one ulp; p + k within the roundings of the float32 trajectory itself."""
    assert compare(half, single.astype(half.dtype)).ulps <= 1, step
    # Each of its steps rounds the sum once, by at most half a last place of a number below 4.
    assert np.abs(half.astype(np.float64) + k - single).max() <= step * 2.0**-23, step


def follow(dtype, kind, meddle=lambda state: None, **options):
    half, single, ours, twin = pair(dtype, **options)
    for step, g in enumerate(gradients(kind, dtype), 1):
        ours.step({"w": g})
        twin.step({"w": g.astype(np.float32)})
        meddle(ours.state["w"])
        assert_follows(half, single, ours.state["w"].k, step)
    return half, single


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16], ids=str)
def test_plain_rounding_freezes(dtype):
    half, single, _, twin = pair(dtype)
    plain = AdaBelief({"w": half}, lr=LR[dtype])
    for g in gradients("drift", dtype):
        plain.step({"w": g})
        twin.step({"w": g.astype(np.float32)})
    assert (half == 1).mean() > 0.9
    assert (single > 1 + 500 * LR[dtype]).all()


@pytest.mark.parametrize("kind", ["drift", "noise"])
@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16], ids=str)
def test_a_compensated_sum_follows_float32(dtype, kind):
    half, _ = follow(dtype, kind)
    assert (half != 1).mean() > 0.9


def test_it_follows_under_rectify_amsgrad_and_nesterov():
    follow(BFLOAT16, "drift", rectify=True, amsgrad=True, nesterov=True)


def _in_bfloat16(state):
    state.k[...] = state.k.astype(BFLOAT16)


def _forgotten(state):
    state.k[...] = 0


def _one_ulp_off(state):
    state.k[0] += 2.0**-7


@pytest.mark.parametrize("meddle", [_in_bfloat16, _forgotten, _one_ulp_off])
def test_the_comparison_fails_where_the_compensation_is_wrong(meddle):
    """Also why k keeps float32: in bfloat16 it stops in its turn."""
    with pytest.raises(AssertionError):
        follow(BFLOAT16, "drift", meddle)


def _rounds(dtype):
    return lambda x: np.asarray(x).astype(dtype).astype(np.float32)


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16, np.dtype(np.float32)], ids=str)
@given(
    p=st.floats(2**-6, 2**10, width=16),
    delta=st.floats(-1, 1, width=32, allow_subnormal=False),
    k=st.floats(-(2**-10), 2**-10, width=32, allow_subnormal=False),
)
def test_nothing_is_lost(dtype, p, delta, k):
    """p' + k' is p + (k + Δ), exactly, as long as the step is not the larger of the two."""
    stored = _rounds(dtype)
    p, k = stored(np.float32(p)), np.float32(k)
    delta = np.float32(delta) * p / 2
    total = k + delta
    assert abs(total) <= p
    change, left = compensated(p, delta, k, stored=stored)
    new = stored(p + change)
    assert change == total
    assert float(new) + float(left) == float(p) + float(total)
    assert abs(left) <= np.spacing(new.astype(dtype)).astype(np.float64)


@pytest.mark.parametrize("sent", [BFLOAT16, FLOAT16], ids=str)
def test_what_an_update_loses_on_its_way_is_kept_too(sent):
    p, delta, k = np.float32([1, 2, 3]), np.float32([1e-3, -1 / 3, 2e-5]), np.zeros(3, np.float32)
    change, left = compensated(p, delta, k, sent=_rounds(sent))
    assert compare(change, _rounds(sent)(delta)).count == 0
    np.testing.assert_array_equal((p + change).astype(np.float64) + left, p.astype(np.float64) + delta)


def test_none_is_off():
    results = []
    for kahan_sum in (None, False, True):
        params = {"w": np.ones(64, BFLOAT16)}
        optimizer = AdaBelief(params, 0.01, kahan_sum=kahan_sum)
        for g, _ in zip(gradients("drift", BFLOAT16), range(50), strict=False):
            optimizer.step({"w": g})
        results.append((params["w"], optimizer.state["w"]))
    (none, state), (off, other), (on, compensation) = results
    assert compare(none, off).count == 0
    assert compare(none, on).count > 0
    assert state.k is other.k is None
    assert compensation.k.any()


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [("float16", "float32"), (BFLOAT16, "float32"), ("float64", "float64"), ("complex64", "complex64")],
)
def test_the_compensation_has_the_compute_dtype(dtype, wide):
    k = AdaBelief({"w": np.ones((2, 3), dtype)}, kahan_sum=True).state["w"].k
    assert (k.dtype, k.shape, k.any()) == (np.dtype(wide), (2, 3), False)


@pytest.mark.parametrize("value", [1, 0, "yes", np.True_])
def test_what_is_no_bool_is_refused(value):
    with pytest.raises(TypeError, match=re.escape(f"Invalid kahan_sum: {value!r} (expected None or a bool)")):
        Hyperparameters(kahan_sum=value)


def test_a_state_goes_on():
    """Ten steps are five steps, a state that is handed over, and five more: bit for bit."""
    straight, stopped, resumed = (np.ones(64, BFLOAT16) for _ in range(3))
    a, b, c = (AdaBelief({"w": w}, kahan_sum=True) for w in (straight, stopped, resumed))
    grads = [g for g, _ in zip(gradients("drift", BFLOAT16), range(10), strict=False)]
    for g in grads:
        a.step({"w": g})
    for g in grads[:5]:
        b.step({"w": g})
    resumed[...] = stopped
    c.load_state_dict(b.state_dict())
    assert compare(c.state["w"].k, b.state["w"].k).count == 0
    for g in grads[5:]:
        c.step({"w": g})
    assert compare(straight, resumed).count == 0
    assert compare(a.state["w"].k, c.state["w"].k).count == 0
    assert compare(a.state["w"].k, b.state["w"].k).count > 0


def test_states_with_and_without_a_compensation_are_told_apart():
    with_k, without = (AdaBelief({"w": np.ones(3)}, kahan_sum=value) for value in (True, None))
    with pytest.raises(ValueError, match=re.escape("Invalid state_dict['w']: missing 'k'")):
        with_k.load_state_dict(without.state_dict())
    with pytest.raises(ValueError, match=re.escape("Invalid state_dict['w']: unknown 'k'")):
        without.load_state_dict(with_k.state_dict())
    state = with_k.state_dict()
    state["w"]["k"] = state["w"]["k"].astype(np.float32)
    with pytest.raises(ValueError, match=re.escape("Invalid state_dict['w']['k']: float32 array of shape (3,)")):
        with_k.load_state_dict(state)
