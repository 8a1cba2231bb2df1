"""Training as people write it, with the core's bits: gradient scaling, autocast, clipping, groups, gradient release."""

import pytest
import torch
from torch import nn
from torch.amp import GradScaler
from torch_rule import Rule, host

from adabelief_core.parity import compare
from adabelief_torch import AdaBelief
from adabelief_torch._parity import to_array

PATHS = pytest.mark.parametrize("path", [{}, {"foreach": True}, {"foreach": False}, {"fused": True}], ids=str)


def model(dtype=torch.float32):
    """A small network, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 3)).to(dtype)


def batch(t, dtype=torch.float32):
    """Inputs and targets of step t."""
    generator = torch.Generator().manual_seed(t)
    return tuple(torch.randn(8, n, generator=generator).to(dtype) for n in (6, 3))


def loss_of(net, t, dtype=torch.float32):
    x, y = batch(t, dtype)
    return nn.functional.mse_loss(net(x), y)


def test_the_rule_sees_one_ulp():
    net = model()
    optimizer, rule = AdaBelief(net.parameters()), Rule(net.parameters())
    loss_of(net, 0).backward()
    rule.step(1e-3)
    optimizer.step()
    rule.check(optimizer)
    for x in (net[0].weight.data, optimizer.state[net[0].weight]["exp_avg_var"]):
        old = x[0, 0].clone()
        x[0, 0] = torch.nextafter(old, torch.tensor(9.0))
        with pytest.raises(AssertionError):
            rule.check(optimizer)
        x[0, 0] = old
    rule.check(optimizer)


@PATHS
def test_a_grad_scaler_with_a_power_of_two(path):
    net = model()
    optimizer, rule = AdaBelief(net.parameters(), lr=0.01, **path), Rule(net.parameters())
    scaler = GradScaler("cpu", init_scale=2.0**13)
    for t in range(5):
        optimizer.zero_grad()
        scaler.scale(loss_of(net, t)).backward()
        # Dividing by it and multiplying by its inverse, as the scaler does for other paths than fused, are the same.
        rule.step(0.01, scale=scaler.get_scale())
        scaler.step(optimizer)
        scaler.update()
        rule.check(optimizer)


@pytest.mark.parametrize("scale", [2.0**16, 3.0, 48.3125])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_fused_step_divides_by_the_scale_and_reads_gradients_only(dtype, scale):
    params = [nn.Parameter(torch.linspace(-2, 2, n).to(dtype)) for n in (7, 300)]
    # Not dense: the kernel takes it another way.
    params.append(nn.Parameter(torch.linspace(-1, 1, 24).reshape(4, 6).to(dtype)[:, ::2]))
    options = {"weight_decay": 0.1, "rectify": True}
    optimizer, rule = AdaBelief(params, lr=0.01, fused=True, **options), Rule(params)
    scaler = GradScaler("cpu", init_scale=scale, growth_interval=100)
    for t in range(8):
        generator = torch.Generator().manual_seed(t)
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator).mul(scale if scale < 100 else 1).to(dtype)
        kept = [p.grad.clone() for p in params]
        scaler.scale(torch.ones(()))
        rule.step(0.01, scale=scale, **options)
        scaler.step(optimizer)
        scaler.update()
        rule.check(optimizer)
        assert all(torch.equal(p.grad, g) for p, g in zip(params, kept, strict=True))
    assert not hasattr(optimizer, "grad_scale")


@pytest.mark.parametrize("path", [{"fused": True}, {"foreach": True}, {"foreach": False}], ids=str)
@pytest.mark.parametrize("kind", ["as it is", "conjugated", "strided"])
def test_complex_gradients_are_divided_as_pairs_of_reals(kind, path):
    # A group of its own path in a fused optimizer; GradScaler itself takes no complex gradients.
    z = torch.randn(4, 6, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    p = nn.Parameter(z[:, ::2] if kind == "strided" else z)
    optimizer = AdaBelief([{"params": [p], "fused": None, **path}], lr=0.01, fused=True)
    rule = Rule([p])
    for t in range(4):
        g = torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(t))
        p.grad = g.conj() if kind == "conjugated" else g
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(3.0), torch.zeros(())
        rule.step(0.01, scale=3.0)
        optimizer.step()
        rule.check(optimizer)


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("fused", [True, None])
def test_an_overflow_skips_parameters_state_and_step_count(fused, bad):
    net = model()
    optimizer, rule = AdaBelief(net.parameters(), fused=fused, amsgrad=True, kahan_sum=True), Rule(net.parameters())
    options = {"amsgrad": True, "kahan_sum": True}
    scaler = GradScaler("cpu", init_scale=4.0)
    for t in range(6):
        optimizer.zero_grad()
        scaler.scale(loss_of(net, t)).backward()
        scale = scaler.get_scale()
        if t in (0, 3):
            net[3].bias.grad[1] = bad
        else:
            rule.step(1e-3, scale=scale, **options)
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == (scale / 2 if t in (0, 3) else scale)
        rule.check(optimizer)


def test_clipping_between_unscaling_and_a_fused_step():
    net = model()
    optimizer, rule = AdaBelief(net.parameters(), fused=True), Rule(net.parameters())
    scaler = GradScaler("cpu", init_scale=1024.0)
    for t in range(3):
        optimizer.zero_grad()
        scaler.scale(loss_of(net, t)).backward()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        assert norm > 0.1
        rule.step(1e-3)
        scaler.step(optimizer)
        scaler.update()
        rule.check(optimizer)


@PATHS
@pytest.mark.parametrize("clip", [nn.utils.clip_grad_norm_, nn.utils.clip_grad_value_])
def test_clipped_gradients(clip, path):
    net = model()
    optimizer, rule = AdaBelief(net.parameters(), **path), Rule(net.parameters())
    for t in range(4):
        optimizer.zero_grad()
        loss_of(net, t).backward()
        clip(net.parameters(), 0.01)
        rule.step(1e-3)
        optimizer.step()
        rule.check(optimizer)


@PATHS
def test_autocast_to_bfloat16(path):
    net = model()
    optimizer, rule = AdaBelief(net.parameters(), lr=0.01, **path), Rule(net.parameters())
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(net, 0)
        loss.backward()
        rule.step(0.01)
        optimizer.step()
        rule.check(optimizer)
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@PATHS
def test_autocast_does_not_reach_into_the_step(path):
    net = model()
    optimizer, rule = AdaBelief(net.parameters(), lr=0.01, **path), Rule(net.parameters())
    loss_of(net, 0).backward()
    rule.step(0.01)
    with torch.autocast("cpu", torch.bfloat16):
        optimizer.step()
    rule.check(optimizer)


@PATHS
def test_pure_bfloat16_training_with_a_compensated_sum(path):
    net, plain = model(torch.bfloat16), model(torch.bfloat16)
    optimizer, rule = AdaBelief(net.parameters(), lr=1e-5, kahan_sum=True, **path), Rule(net.parameters())
    other = AdaBelief(plain.parameters(), lr=1e-5, **path)
    before = to_array(net[1].weight)
    for _ in range(20):
        for one, each in ((net, optimizer), (plain, other)):
            each.zero_grad()
            loss_of(one, 0, torch.bfloat16).backward()
        rule.step(1e-5, kahan_sum=True)
        optimizer.step()
        other.step()
        rule.check(optimizer)
    # The scale of LayerNorm is 1: steps of 1e-5 round away, but for what is kept of them.
    assert compare(to_array(plain[1].weight), before).count == 0
    assert all(state["kahan_comp"].dtype is torch.float32 for state in optimizer.state.values())
    assert optimizer.state[net[1].weight]["kahan_comp"].abs().max() > 1e-4


GROUPS = [
    {},
    {"lr": torch.tensor(0.25), "betas": (torch.tensor(0.5), torch.tensor(0.75))},
    {"betas": (0.5, 0.75)},
    {"eps": 1e-3},
    {"eps_root": 1e-4},
    {"weight_decay": 0.5},
    {"weight_decay": torch.tensor(0.5), "weight_decouple": False},
    {"weight_decay": 0.125, "fixed_decay": True},
    {"rectify": True},
    {"rectify": True, "degenerated_to_sgd": False},
    {"amsgrad": True},
    {"nesterov": True},
    {"maximize": True},
    {"kahan_sum": True},
    {"update_clip": 0.25},
]
FLAGS = [{}, {"foreach": True, "capturable": True}, {"foreach": False}, {"fused": True}]


@pytest.mark.parametrize("shift", range(len(FLAGS)))
def test_every_option_and_path_differs_from_group_to_group(shift):
    params = [nn.Parameter(torch.linspace(-1, 1, 9)) for _ in GROUPS]
    flags = [FLAGS[(index + shift) % len(FLAGS)] for index in range(len(GROUPS))]
    groups = [{"params": [p], **options, **flag} for p, options, flag in zip(params, GROUPS, flags, strict=True)]
    optimizer, rule = AdaBelief(groups, lr=0.125), Rule(params)
    for t in range(8):
        for p in params:
            p.grad = torch.randn(9, generator=torch.Generator().manual_seed(t))
        for p, options in zip(params, GROUPS, strict=True):
            plain = {key: host(value) for key, value in {"lr": 0.125, **options}.items()}
            plain["betas"] = tuple(map(host, options.get("betas", (0.9, 0.999))))
            rule.step(only=[p], **plain)
        optimizer.step()
        rule.check(optimizer)
    # A compensated sum of float32 may come to the same.
    assert len({tuple(p.tolist()) for p in params[:-1]}) == len(params) - 1
