"""`update_clip`: where g - m goes to 0 no step is longer than lr·k·update_clip, on each path that a step can take."""

import math

import pytest
import torch
from torch_helpers import parameter, steps

from adabelief_core import default_kernel
from adabelief_torch import AdaBelief, restore, snapshot

PATHS = {
    "eager": {},
    "foreach": {"foreach": True},
    "single": {"foreach": False},
    "capturable": {"foreach": True, "capturable": True},
    "differentiable": {"differentiable": True},
}
if default_kernel() == "numba":
    PATHS["fused"] = {"fused": True}
paths = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


def longest(case, count, dtype=torch.float32, **options):
    """The longest element of the last steps, with a learning rate of 1."""
    generator = torch.Generator().manual_seed(0)
    p = torch.zeros(4, dtype=dtype, requires_grad=not options.get("differentiable"))
    betas = (0.0 if case == "no momentum" else 0.9, 0.99)
    optimizer = AdaBelief([p], lr=1.0, betas=betas, **options)
    found = 0.0
    for t in range(count):
        with torch.no_grad():
            p.zero_()
        if case == "no momentum":
            p.grad = torch.randn(4, generator=generator).to(dtype)
        else:
            p.grad = torch.full((4,), 3.0, dtype=dtype)
        if case == "clipped by element":
            p.grad += 0.4 * torch.randn(4, generator=generator).to(dtype)
            torch.nn.utils.clip_grad_value_([p], 1.0)
        optimizer.step()
        if t >= count - 100:
            found = max(found, p.detach().abs().max().item())
    return found


@pytest.mark.parametrize("case", ["constant", "clipped by element", "no momentum"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_it_the_step_grows_and_with_it_it_does_not(case, dtype):
    assert longest(case, 3000, dtype) > 1e6
    assert longest(case, 3000, dtype, update_clip=2.0) == pytest.approx(2.0, rel=1e-6)


@paths
def test_every_path_bounds_the_step(path):
    assert longest("constant", 1500, **path) > 1e3
    assert longest("constant", 1500, update_clip=2.0, **path) == pytest.approx(2.0, rel=1e-6)


@paths
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64, torch.complex64])
def test_nan_stays_nan_and_infinity_becomes_the_bound(path, dtype):
    p = torch.zeros(4, dtype=dtype, requires_grad=not path.get("differentiable"))
    optimizer = AdaBelief([p], lr=1.0, rectify=True, update_clip=0.5, **path)
    p.grad = torch.tensor([math.nan, math.inf, -math.inf, 1.0], dtype=dtype)
    optimizer.step()
    values = torch.view_as_real(p.detach())[:, 0] if dtype.is_complex else p.detach()
    assert values[0].isnan()
    assert values[1:].tolist() == pytest.approx([-5.0, 5.0, -1.0], rel=1e-2)


@paths
def test_a_bound_that_nothing_reaches_changes_no_bit(path):
    torch.manual_seed(0)
    a, b = (torch.nn.Parameter(torch.linspace(-1, 1, 99)) for _ in range(2))
    free = AdaBelief([a], weight_decay=0.1, **path)
    far = AdaBelief([b], weight_decay=0.1, update_clip=1e38, **path)
    if path.get("differentiable"):
        a.requires_grad_(False)
        b.requires_grad_(False)
    for _ in range(20):
        a.grad = torch.randn(99)
        b.grad = a.grad.clone()
        free.step()
        far.step()
    assert torch.equal(a, b)


def test_groups_have_bounds_of_their_own_that_may_change():
    p, q, r = (torch.nn.Parameter(torch.zeros(3)) for _ in range(3))
    groups = [{"params": [p]}, {"params": [q], "update_clip": 0.01}, {"params": [r], "update_clip": 0.02}]
    optimizer = AdaBelief(groups, lr=1.0, update_clip=0.1)
    for x in (p, q, r):
        x.grad = torch.tensor([1.0, -2.0, 3.0])
    optimizer.step()
    assert [x.abs().max().item() for x in (p, q, r)] == pytest.approx([1.0, 0.1, 0.2])
    optimizer.param_groups[1]["update_clip"] = None
    optimizer.step()
    assert q.abs().min() > 0.5


def test_a_state_dict_has_it():
    optimizer = AdaBelief([parameter(3)], update_clip=0.5)
    steps(optimizer, 2)
    other = AdaBelief([parameter(3)])
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["update_clip"] == 0.5


def test_a_snapshot_has_it():
    p = torch.nn.Parameter(torch.zeros(3))
    optimizer = AdaBelief([p], update_clip=0.5)
    steps(optimizer, 2)
    taken = snapshot(optimizer, [("p", p)])
    assert taken.hyperparameters.update_clip == 0.5
    with pytest.raises(ValueError, match=r"Invalid update_clip: None \(expected 0\.5, with which"):
        restore(AdaBelief([p]), [("p", p)], taken)
