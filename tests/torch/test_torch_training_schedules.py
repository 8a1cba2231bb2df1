"""What changes from step to step around an optimizer: schedules, averages, names, late groups, gradient release."""

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn
from torch_helpers import assert_same
from torch_rule import Rule, host

from adabelief_torch import AdaBelief
from adabelief_torch._parity import to_array

SCHEDULERS = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (t + 1)),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda t: 0.75),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 5], 0.5),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.25, total_iters=5),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.75),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 6),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 6),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1, factor=0.5),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 1e-3, 0.1, step_size_up=2),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=10),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.5, 3), lr_scheduler.ExponentialLR(o, 0.75)], [3]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.LinearLR(o, 0.25), lr_scheduler.ExponentialLR(o, 0.75)]
    ),
    "SWALR": lambda o: SWALR(o, swa_lr=0.5, anneal_epochs=4),
}
CYCLES = ("CyclicLR", "OneCycleLR")
"""They cycle β1 against the learning rate."""


def test_every_scheduler_of_torch_is_here():
    bases = {"LRScheduler", "_LRScheduler"}
    classes = {name for name in lr_scheduler.__all__ if name not in bases} | {"SWALR"}
    assert classes == set(SCHEDULERS)


def params_of(count=1):
    return [nn.Parameter(torch.linspace(-1, 1, 11) + i) for i in range(count)]


def give_grads(params, t):
    for p in params:
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(t))


def schedule_step(scheduler):
    scheduler.step(*([1.0] if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else []))


@pytest.mark.parametrize("tensor", [False, True], ids=["number", "tensor"])
@pytest.mark.parametrize("path", [{}, {"foreach": True, "capturable": True}, {"fused": True}], ids=str)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_rule_gets_the_schedules_numbers(name, path, tensor):
    params = params_of()
    lr = torch.tensor(0.125) if tensor else 0.125
    optimizer, rule = AdaBelief(params, lr=lr, **path), Rule(params)
    scheduler = SCHEDULERS[name](optimizer)
    seen = set()
    for t in range(8):
        give_grads(params, t)
        group = optimizer.param_groups[0]
        lr_now, betas = host(group["lr"]), tuple(map(host, group["betas"]))
        seen.add((lr_now, betas))
        rule.step(lr_now, betas=betas)
        optimizer.step()
        schedule_step(scheduler)
        rule.check(optimizer)
    assert len({lr_now for lr_now, _ in seen}) > 1
    assert (len({betas for _, betas in seen}) > 1) is (name in CYCLES)


@pytest.mark.parametrize("name", CYCLES)
def test_tensors_as_betas_may_be_cycled(name):
    params = params_of()
    betas = (torch.tensor(0.875), torch.tensor(0.96875))
    optimizer, rule = AdaBelief(params, lr=torch.tensor(0.125), betas=betas, capturable=True), Rule(params)
    scheduler = SCHEDULERS[name](optimizer)
    for t in range(8):
        give_grads(params, t)
        optimizer.param_groups[0]["foreach"] = bool(t % 2)
        group = optimizer.param_groups[0]
        rule.step(host(group["lr"]), betas=tuple(map(host, group["betas"])))
        optimizer.step()
        scheduler.step()
        rule.check(optimizer)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedule_and_its_optimizer_are_saved_and_go_on(name):
    def start():
        params = params_of()
        optimizer = AdaBelief(params, lr=0.125)
        return params, optimizer, SCHEDULERS[name](optimizer)

    def run(params, optimizer, scheduler, numbers):
        for t in numbers:
            give_grads(params, t)
            optimizer.step()
            schedule_step(scheduler)

    params, optimizer, scheduler = start()
    run(params, optimizer, scheduler, range(4))
    others, other, another = start()
    for p, q in zip(others, params, strict=True):
        p.data.copy_(q.data)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    another.load_state_dict(scheduler.state_dict())
    run(params, optimizer, scheduler, range(4, 8))
    run(others, other, another, range(4, 8))
    assert_same(optimizer, other)
    assert optimizer.param_groups[0]["lr"] == other.param_groups[0]["lr"]


@pytest.mark.parametrize("kind", ["average", "moving average"])
def test_averaged_models_follow(kind):
    net = nn.Linear(4, 3)
    net.load_state_dict({"weight": torch.linspace(-1, 1, 12).reshape(3, 4), "bias": torch.zeros(3)})
    average = get_swa_multi_avg_fn() if kind == "average" else get_ema_multi_avg_fn(0.75)
    averaged = AveragedModel(net, multi_avg_fn=average)
    optimizer, rule = AdaBelief(net.parameters(), lr=0.1), Rule(net.parameters())
    scheduler = SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)
    kept = []
    for t in range(5):
        give_grads(net.parameters(), t)
        rule.step(optimizer.param_groups[0]["lr"])
        optimizer.step()
        averaged.update_parameters(net)
        scheduler.step()
        rule.check(optimizer)
        kept.append(rule.p[0])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
    weights = [0.2] * 5 if kind == "average" else [0.75**4, *(0.25 * 0.75**n for n in (3, 2, 1, 0))]
    expected = sum(weight * p.astype(np.float64) for weight, p in zip(weights, kept, strict=True))
    # Torch rounds each of its five sums, of numbers below 2.
    np.testing.assert_allclose(to_array(averaged.module.weight), expected, rtol=0, atol=5 * 2.0**-23)
    assert not np.allclose(to_array(averaged.module.weight), kept[-1], rtol=0, atol=1e-3)


def test_names_are_kept_through_late_groups_and_files():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    optimizer = AdaBelief(net[0].named_parameters(prefix="0"))
    give_grads(net.parameters(), 0)
    optimizer.step()
    optimizer.add_param_group({"params": list(net[1].named_parameters(prefix="1")), "lr": 0.5})
    with pytest.raises(ValueError, match="with/without names"):
        optimizer.add_param_group({"params": params_of()})
    optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    names = [group["param_names"] for group in saved["param_groups"]]
    assert names == [["0.weight", "0.bias"], ["1.weight", "1.bias"]]
    other_net = copy.deepcopy(net)
    other = AdaBelief(
        [{"params": list(layer.named_parameters(prefix=str(i)))} for i, layer in enumerate(other_net)], lr=1.0
    )
    other.load_state_dict(saved)
    assert [group["lr"] for group in other.param_groups] == [1e-3, 0.5]
    assert [state["step"] for state in other.state.values()] == [2, 2, 1, 1]
    give_grads(net.parameters(), 2)
    give_grads(other_net.parameters(), 2)
    optimizer.step()
    other.step()
    assert_same(optimizer, other)
    other.param_groups[1]["params"][0].grad = torch.ones(2, 3).to_sparse()
    with pytest.raises(RuntimeError, match=r"param_groups\[1\]\['params'\]\[0\] \('1.weight'\)"):
        other.step()


@pytest.mark.parametrize("path", [{}, {"foreach": True}, {"fused": True}], ids=str)
def test_gradients_may_be_released_during_backward(path):
    def network():
        net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))
        generator = torch.Generator().manual_seed(0)
        for p in net.parameters():
            p.data.copy_(torch.randn(p.shape, generator=generator))
        return net

    net, other_net = network(), network()
    options = {"lr": 0.01, "weight_decay": 0.1, **path}
    other = AdaBelief(other_net.parameters(), **options)
    optimizers = {p: AdaBelief([p], **options) for p in net.parameters()}

    def release(p):
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in net.parameters():
        p.register_post_accumulate_grad_hook(release)
    for t in range(4):
        x = torch.randn(3, 5, generator=torch.Generator().manual_seed(t))
        net(x).square().sum().backward()
        assert all(p.grad is None for p in net.parameters())
        other.zero_grad()
        other_net(x).square().sum().backward()
        other.step()
        for p, q in zip(net.parameters(), other_net.parameters(), strict=True):
            assert torch.equal(p, q)
            assert torch.equal(optimizers[p].state[p]["exp_avg_var"], other.state[q]["exp_avg_var"])
