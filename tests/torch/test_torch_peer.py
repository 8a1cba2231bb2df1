"""Agreement with adabelief-pytorch 0.2.1; where it differs, `test_torch_migrating.py` shows."""

import pytest
import torch
from torch_helpers import parameter

from adabelief_torch import AdaBelief

peer = pytest.importorskip("adabelief_pytorch")

# The peer rounds in another order (it decays first, and divides where the rule multiplies): a few ulps a step.
BOUND = 1e-12

DECAYS = [
    {},
    {"weight_decay": 0.1},
    {"weight_decay": 0.01, "fixed_decay": True},
    {"weight_decay": 0.1, "weight_decouple": False},
]
PHASES = [
    {"rectify": False},
    {"rectify": False, "amsgrad": True},
    {"rectify": True},
    {"rectify": True, "degenerated_to_sgd": False},
]
NUMBERS = [{}, {"betas": (0.8, 0.99), "eps": 1e-8}, {"betas": (0.0, 0.9), "eps": 1e-3}]


def theirs(params, **options):
    return peer.AdaBelief(params, print_change_log=False, **options)


def run(a, b, count, start=0):
    """Give both optimizers the same gradients; the largest relative difference of their parameters."""
    (p,), (q,) = (optimizer.param_groups[0]["params"] for optimizer in (a, b))
    worst = 0.0
    generator = torch.Generator().manual_seed(start)
    for _ in range(count):
        p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
        q.grad = p.grad.clone()
        a.step()
        b.step()
        worst = max(worst, ((p - q).abs() / q.abs().clamp(min=1)).max().item())
    return worst


def pair(dtype=torch.float64, **options):
    p, q = parameter(17, dtype=dtype), parameter(17, dtype=dtype)
    return AdaBelief([p], **options), theirs([q], **options)


@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("decay", DECAYS)
def test_a_thousand_steps_agree(decay, phase, numbers):
    assert run(*pair(lr=1e-2, **decay, **phase, **numbers), 1_000) <= BOUND


def test_it_decays_before_the_step_which_differs_by_rounding_alone():
    mine, its = pair(weight_decay=0.1, rectify=False)
    assert 0 < run(mine, its, 100) <= BOUND
