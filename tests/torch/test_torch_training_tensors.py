"""Parameters and gradients as programs have them: swapped, moved, converted, parametrized, tied, strided."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch_rule import Rule

from adabelief_torch import AdaBelief

PATHS = pytest.mark.parametrize("path", [{}, {"foreach": True}, {"foreach": False}, {"fused": True}], ids=str)
OPTIONS = {"weight_decay": 0.1, "amsgrad": True, "kahan_sum": True}


def run(params, optimizer, rule, count=2, start=0, like=lambda g: g):
    """Steps beside the rule."""
    for t in range(start, start + count):
        for p in params:
            g = torch.randn(p.shape, generator=torch.Generator().manual_seed(t))
            p.grad = like(g.to(p.dtype))
        rule.step(0.01, **OPTIONS)
        optimizer.step()
        rule.check(optimizer)


def begin(params, **path):
    return AdaBelief(params, lr=0.01, **OPTIONS, **path), Rule(params)


@PATHS
def test_a_swapped_parameter_goes_on_with_its_state(path):
    params = [nn.Parameter(torch.ones(3, 4))]
    optimizer, rule = begin(params, **path)
    run(params, optimizer, rule)
    other = nn.Parameter(params[0].detach() + 0.0)
    old = params[0].data_ptr()
    torch.utils.swap_tensors(params[0], other)
    assert params[0].data_ptr() != old
    kept = other.detach().clone()
    run(params, optimizer, rule, start=2)
    assert torch.equal(other, kept)


@PATHS
def test_a_parameter_pointed_to_other_memory_goes_on_there(path):
    params = [nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(2))]
    optimizer, rule = begin(params, **path)
    run(params, optimizer, rule)
    old = params[0].data
    kept = old.clone()
    params[0].data = torch.empty(4, 3).t().copy_(old)
    run(params, optimizer, rule, start=2)
    assert torch.equal(old, kept)
    # As some scatter parameters into one buffer, and views of it.
    buffer = torch.cat([p.detach().reshape(-1) for p in params])
    params[0].data, params[1].data = buffer[:12].view(3, 4), buffer[12:]
    run(params, optimizer, rule, start=4)
    assert torch.equal(params[1], buffer[12:])


@PATHS
@pytest.mark.parametrize("swap", [False, True])
def test_a_model_that_changes_dtype_is_refused_until_its_state_is_converted(path, swap):
    net = nn.Linear(3, 2)
    optimizer = AdaBelief(net.parameters(), **path)
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.__future__.set_swap_module_params_on_conversion(swap)
    try:
        net.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    optimizer.zero_grad()
    net(torch.ones(1, 3).double()).sum().backward()
    before = net.weight.detach().clone()
    with pytest.raises(ValueError, match=r"expected torch.float64 on cpu: .* load_state_dict converts the state"):
        optimizer.step()
    assert torch.equal(net.weight, before)
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert optimizer.state[net.weight]["exp_avg"].dtype is torch.float64
    assert optimizer.state[net.weight]["step"] == 2


@PATHS
def test_a_model_that_becomes_half_precision_keeps_its_state(path):
    # Its moments are float32 before and after.
    net = nn.Linear(3, 2)
    params = list(net.parameters())
    optimizer, rule = begin(params, **path)
    run(params, optimizer, rule)
    net.bfloat16()
    rule.read_params()
    run(params, optimizer, rule, start=2)


@PATHS
def test_parametrized_weights(path):
    net = nn.Linear(4, 4)

    class Symmetric(nn.Module):
        def forward(self, x):
            return x.triu() + x.triu(1).transpose(-1, -2)

    parametrize.register_parametrization(net, "weight", Symmetric())
    params = list(net.parameters())
    optimizer, rule = begin(params, **path)
    for t in range(3):
        optimizer.zero_grad()
        net(torch.randn(2, 4, generator=torch.Generator().manual_seed(t))).square().sum().backward()
        rule.step(0.01, **OPTIONS)
        optimizer.step()
        rule.check(optimizer)
    assert torch.equal(net.weight, net.weight.t())
    parametrize.remove_parametrizations(net, "weight")
    # The parameter is the same, with other values in other memory.
    assert any(net.weight is p for p in params)
    rule.read_params()
    run(params, optimizer, rule, start=3)


@PATHS
def test_tied_parameters_step_once(path):
    net = nn.ModuleList([nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)])
    net[1].weight = net[0].weight
    params = list(net.parameters())
    assert len(params) == 1
    optimizer, rule = begin(params, **path)
    for _ in range(2):
        optimizer.zero_grad()
        net[1](net[0](torch.tensor([0, 3]))).square().sum().backward()
        rule.step(0.01, **OPTIONS)
        optimizer.step()
        rule.check(optimizer)
    assert optimizer.state[net[0].weight]["step"] == 2


LAYOUTS = {
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(0, 3).contiguous().transpose(0, 3),
    "every other": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "a column": lambda x: torch.stack([x, x], -1)[..., 0],
    "contiguous": lambda x: x.contiguous(),
}


@PATHS
@pytest.mark.parametrize("g", LAYOUTS)
@pytest.mark.parametrize("p", LAYOUTS)
def test_any_strides_of_a_parameter_and_its_gradient(p, g, path):
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    params = [nn.Parameter(LAYOUTS[p](x)), nn.Parameter(LAYOUTS[p](x).bfloat16())]
    places = [(param.data_ptr(), param.stride()) for param in params]
    optimizer, rule = begin(params, **path)
    run(params, optimizer, rule, like=LAYOUTS[g])
    assert [(param.data_ptr(), param.stride()) for param in params] == places


def test_gradients_of_another_layout_every_step():
    params = [nn.Parameter(torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)))]
    optimizer, rule = begin(params)
    for t, layout in enumerate([*LAYOUTS.values(), *LAYOUTS.values()]):
        run(params, optimizer, rule, count=1, start=t, like=layout)
