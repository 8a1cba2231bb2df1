"""Groups, and what works on them: schedulers, hooks, scalers."""

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau
from torch_helpers import PATHS, assert_same, parameter, steps

from adabelief_torch import AdaBelief


def test_options_differ_from_group_to_group():
    options = {"lr": 0.1, "nesterov": True, "rectify": True, "weight_decay": 0.5, "fixed_decay": True}
    p, q, a, b = (parameter(4, seed=seed) for seed in (0, 1, 0, 1))
    optimizer = AdaBelief([{"params": [p]}, {"params": [q], **options}])
    one, two = AdaBelief([a]), AdaBelief([b], **options)
    for t in range(8):
        for x, y in ((p, a), (q, b)):
            x.grad = torch.randn(4, generator=torch.Generator().manual_seed(t))
            y.grad = x.grad.clone()
        for each in (optimizer, one, two):
            each.step()
    assert torch.equal(p, a)
    assert torch.equal(q, b)


def test_a_group_added_late_takes_its_first_steps():
    optimizer = AdaBelief([parameter(3)])
    steps(optimizer, 3)
    late = parameter(3)
    optimizer.add_param_group({"params": late, "lr": 0.5})
    steps(optimizer, 1, start=3)
    assert optimizer.state[late]["step"] == 1
    assert optimizer.param_groups[1]["lr"] == 0.5
    assert optimizer.param_groups[1]["eps"] == 1e-16


def test_named_parameters_keep_their_names():
    model = torch.nn.Linear(3, 2)
    optimizer = AdaBelief(model.named_parameters())
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    steps(optimizer, 1)
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]


@pytest.mark.parametrize(
    "make",
    [
        lambda o: LambdaLR(o, lambda t: 1 / (t + 1)),
        lambda o: OneCycleLR(o, max_lr=0.1, total_steps=10),
        lambda o: ReduceLROnPlateau(o, patience=0),
    ],
)
def test_schedulers_set_the_learning_rate(make):
    optimizer, other = AdaBelief([parameter(3)], lr=0.1), AdaBelief([parameter(3)], lr=0.1)
    scheduler = make(optimizer)
    for t in range(5):
        other.param_groups[0].update({key: optimizer.param_groups[0][key] for key in ("lr", "betas")})
        steps(optimizer, 1, start=t)
        steps(other, 1, start=t)
        scheduler.step(*([1.0] if isinstance(scheduler, ReduceLROnPlateau) else []))
    assert optimizer.param_groups[0]["lr"] != 0.1
    assert_same(optimizer, other)


@PATHS
def test_the_learning_rate_may_be_a_tensor(foreach):
    # As AdamW has it: foreach reads a tensor's learning rate only when it may not read it on the host.
    optimizer = AdaBelief([parameter(3)], lr=torch.tensor(0.25), foreach=foreach, capturable=bool(foreach))
    other = AdaBelief([parameter(3)], lr=0.25)
    steps(optimizer, 2)
    steps(other, 2)
    optimizer.param_groups[0]["lr"].fill_(0.5)
    other.param_groups[0]["lr"] = 0.5
    steps(optimizer, 2)
    steps(other, 2)
    assert_same(optimizer, other)


def test_betas_may_be_a_list():
    optimizer, other = AdaBelief([parameter(3)], betas=[0.8, 0.9]), AdaBelief([parameter(3)], betas=(0.8, 0.9))
    steps(optimizer, 2)
    steps(other, 2)
    assert_same(optimizer, other)


def test_hooks_run_around_a_step():
    optimizer = AdaBelief([parameter(3)])
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    steps(optimizer, 1)
    assert seen == ["before", "after"]


def test_zero_grad():
    optimizer = AdaBelief([parameter(3)])
    (p,) = optimizer.param_groups[0]["params"]
    steps(optimizer, 1)
    optimizer.zero_grad(set_to_none=False)
    assert torch.equal(p.grad, torch.zeros(3))
    optimizer.zero_grad()
    assert p.grad is None


def test_grad_scaler_skips_overflows_and_unscales():
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    p, q = parameter(3), parameter(3)
    optimizer, other = AdaBelief([p]), AdaBelief([q])
    for bad in (False, True):
        before = p.detach().clone()
        p.grad = torch.full((3,), float("inf") if bad else 2.0)
        scaler.scale(torch.ones(()))
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(p, before) is bad
    q.grad = torch.full((3,), 0.5)
    other.step()
    assert torch.equal(p, q)


def test_amsgrad_turned_on_late_starts_from_there():
    optimizer = AdaBelief([parameter(3)])
    (p,) = optimizer.param_groups[0]["params"]
    steps(optimizer, 3)
    optimizer.param_groups[0]["amsgrad"] = True
    steps(optimizer, 1, start=3)
    state = optimizer.state[p]
    assert torch.equal(state["max_exp_avg_var"], state["exp_avg_var"])
