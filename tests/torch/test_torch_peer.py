"""Agreement with adabelief-pytorch 0.2.1, and each difference, with its reason."""

import copy

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


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("rectify", [False, True])
def test_its_checkpoints_go_on_here(rectify, amsgrad):
    options = {"lr": 1e-2, "rectify": rectify, "weight_decay": 0.1, "amsgrad": amsgrad and not rectify}
    q = parameter(17, dtype=torch.float64)
    old = theirs([q], **options)
    new = AdaBelief([parameter(17, dtype=torch.float64)], **options)
    run(new, old, 20)
    resumed = AdaBelief([q.detach().clone().requires_grad_()], **options)
    saved = copy.deepcopy(old.state_dict())
    assert isinstance(saved["state"][0]["step"], int)
    resumed.load_state_dict(saved)
    group = resumed.param_groups[0]
    assert "buffer" not in group
    assert (group["rectify"], group["weight_decay"]) == (rectify, 0.1)
    assert run(resumed, old, 100, start=1) <= BOUND


def test_it_ignores_amsgrad_under_rectify():
    # It computes the largest second moment, and then divides by the last one.
    options = {"betas": (0.9, 0.9), "rectify": True}
    with_it, without = (theirs([parameter(5, dtype=torch.float64)], amsgrad=x, **options) for x in (True, False))
    assert run(with_it, without, 50) == 0.0
    assert run(*pair(amsgrad=True, **options), 50) > 1e-4


def test_a_deepcopy_of_it_loses_its_options():
    # They stand on the instance, and an optimizer's copy takes groups and state alone.
    mine, its = pair()
    run(mine, its, 1)
    assert not hasattr(copy.deepcopy(its), "rectify")
    copy.deepcopy(mine).step()


def test_it_points_half_precision_parameters_to_new_memory():
    mine, its = pair(dtype=torch.float16)
    (p,), (q,) = mine.param_groups[0]["params"], its.param_groups[0]["params"]
    places = p.data_ptr(), q.data_ptr()
    views = p.detach().view(-1), q.detach().view(-1)
    run(mine, its, 1)
    assert p.data_ptr() == places[0]
    assert torch.equal(views[0], p)
    assert not torch.equal(views[1], q)


def test_its_coupled_decay_changes_the_gradient():
    mine, its = pair(weight_decay=0.1, weight_decouple=False)
    (p,), (q,) = mine.param_groups[0]["params"], its.param_groups[0]["params"]
    run(mine, its, 1)
    assert not torch.equal(p.grad, q.grad)


def test_it_decays_before_the_step_which_differs_by_rounding_alone():
    mine, its = pair(weight_decay=0.1, rectify=False)
    assert 0 < run(mine, its, 100) <= BOUND


def test_its_rectification_is_on_unless_told_otherwise():
    assert theirs([parameter(2)]).rectify
    assert not AdaBelief([parameter(2)]).param_groups[0]["rectify"]
