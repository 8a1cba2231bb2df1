"""On a CUDA device: the same bits, and what only a device has: graphs, streams, in-kernel gradient scaling."""

import gc

import pytest
import torch

from adabelief_core.parity import DTYPES, check, covering, quick
from adabelief_torch import AdaBelief
from adabelief_torch._parity import adapter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

MODES = ["fused", "fused, capturable", "foreach", "single"]
OPTIONS = {"eps": 1e-8, "weight_decay": 0.1, "rectify": True, "amsgrad": True, "nesterov": True, "kahan_sum": True}
SHAPES = [(3, 5), (1025,), (), (64, 64)]


def cuda_mode(name):
    return next(mode for mode in adapter.modes() if (mode.device, mode.name) == ("cuda", name))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MODES)
def test_every_option_and_pair_of_options_has_the_rules_bits(name, dtype):
    broken = {p.name: result for p in covering(dtype) if (result := check(cuda_mode(name), p)).differing}
    assert not broken


@pytest.mark.parametrize("name", ["fused", "foreach"])
def test_ten_thousand_steps_have_the_rules_bits(name):
    for problem in quick("float32", steps=10_000, tensors=("odd", "scalar")):
        assert not check(cuda_mode(name), problem).differing


def parameters(dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to("cuda", dtype)) for shape in SHAPES]


def gradients(step, dtype=torch.float32):
    return [p.detach() for p in parameters(dtype, seed=100 + step)]


def give(params, step):
    for p, g in zip(params, gradients(step, params[0].dtype), strict=True):
        p.grad = g


def assert_same(a, b):
    ps, qs = ([p for group in optimizer.param_groups for p in group["params"]] for optimizer in (a, b))
    for p, q in zip(ps, qs, strict=True):
        assert torch.equal(p, q)
        assert a.state[p].keys() == b.state[q].keys()
        assert all(torch.equal(x.cpu(), b.state[q][key].cpu()) for key, x in a.state[p].items())


def test_graph_capture_is_refused_before_anything_changes():
    p = torch.nn.Parameter(torch.ones(5, device="cuda"))
    p.grad = torch.ones_like(p)
    optimizer = AdaBelief([p], foreach=True)
    optimizer.step()
    before = p.detach().clone()
    with pytest.raises(RuntimeError, match="CUDA graph capture"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        optimizer.step()
    assert torch.equal(p, before)


def captured(optimizer, params):
    """A graph of one step, after three steps outside of it, and the gradients that it reads."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for step in range(3):
            give(params, step)
            optimizer.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    for p in params:
        p.grad = torch.zeros_like(p)
    with torch.cuda.graph(graph):
        optimizer.step()
    return graph, [p.grad for p in params]


def replay(graph, grads, step):
    for g, new in zip(grads, gradients(step, grads[0].dtype), strict=True):
        g.copy_(new)
    graph.replay()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("path", [{"fused": True}, {"foreach": True}])
def test_a_captured_step_goes_on_at_every_replay(path, dtype):
    # Also across the switch of rectification, which a graph cannot branch on.
    lr = torch.tensor(0.01, device="cuda")
    params, others = parameters(dtype), parameters(dtype)
    optimizer = AdaBelief(params, lr=lr, capturable=True, **path, **OPTIONS)
    eager = AdaBelief(others, lr=lr, capturable=True, **path, **OPTIONS)
    graph, grads = captured(optimizer, params)
    for step in range(12):
        if step == 8:
            lr.fill_(0.003)
        if step < 3:
            give(others, step)
        else:
            replay(graph, grads, step)
            give(others, step)
        eager.step()
        if step >= 3:
            assert_same(optimizer, eager)


def test_two_graphs_and_steps_between_them_keep_their_gradients_apart():
    params, others = parameters(), parameters()
    optimizer, eager = AdaBelief(params, fused=True, capturable=True), AdaBelief(others, fused=True)
    graph, grads = captured(optimizer, params)
    other_grads = [torch.zeros_like(g) for g in grads]
    for p, g in zip(params, other_grads, strict=True):
        p.grad = g
    other_graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(other_graph):
        optimizer.step()
    for step in range(15):
        give(others, step)
        eager.step()
        if step >= 3 and step % 3 == 0:
            replay(graph, grads, step)
        elif step >= 3 and step % 3 == 1:
            replay(other_graph, other_grads, step)
        elif step >= 3:
            give(params, step)
            optimizer.step()
        gc.collect()
    for p, q in zip(params, others, strict=True):
        assert torch.equal(p, q)


def test_a_first_step_cannot_be_captured(monkeypatch):
    from adabelief_torch import _triton_table

    params = parameters()
    optimizer = AdaBelief(params, fused=True, capturable=True)
    give(params, 0)
    optimizer.step()
    before = [p.detach().clone() for p in params]
    monkeypatch.setattr(_triton_table, "_reserve", _triton_table._Reserve())
    with pytest.raises(RuntimeError, match="only after a step outside"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        optimizer.step()
    assert all(map(torch.equal, params, before))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_waits_for_nothing(dtype):
    params = parameters(dtype)
    optimizer = AdaBelief(params, fused=True, **OPTIONS)
    give(params, 0)
    optimizer.step()
    moved = [gradients(step, dtype) for step in range(1, 5)]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step, grads in enumerate(moved):
            for p, g in zip(params, grads, strict=True):
                p.grad = g
            optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
            optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert optimizer.state[params[0]]["step"] == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grad_scaler_scales_in_the_kernel(dtype):
    params, others = parameters(dtype), parameters(dtype)
    optimizer, plain = AdaBelief(params, fused=True, **OPTIONS), AdaBelief(others, fused=True, **OPTIONS)
    scaler = torch.amp.GradScaler("cuda", init_scale=1024.0, growth_interval=100)
    taken = 0
    for step in range(6):
        give(params, step)
        give(others, step)
        scale = scaler.scale(torch.ones((), device="cuda"))
        for p in params:
            p.grad = p.grad * scale.to(dtype)
        if step == 3:
            params[1].grad[7] = torch.inf
        else:
            taken += 1
            for q, scaled in zip(others, params, strict=True):
                q.grad = scaled.grad / scale.to(dtype)
            plain.step()
        scaler.step(optimizer)
        scaler.update()
        assert_same(optimizer, plain)
    assert optimizer.state[params[0]]["step"] == taken == 5
    assert scaler.get_scale() == 512


def test_streams_of_their_own():
    params, others = parameters(), parameters()
    optimizer, plain = AdaBelief(params, fused=True), AdaBelief(others, fused=True)
    for step in range(6):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            give(params, step)
            optimizer.step()
        torch.cuda.current_stream().wait_stream(stream)
        give(others, step)
        plain.step()
    assert_same(optimizer, plain)


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_gradients_at_any_address(offset):
    params, others = parameters(), parameters()
    optimizer, plain = AdaBelief(params, fused=True), AdaBelief(others, fused=True)
    for step in range(3):
        give(params, step)
        give(others, step)
        for p in params:
            bucket = torch.zeros(p.numel() + offset, device="cuda")
            view = bucket[offset:].view(p.shape)
            view.copy_(p.grad)
            p.grad = view
        optimizer.step()
        plain.step()
    assert_same(optimizer, plain)


def test_more_elements_than_an_int32_counts():
    size = 2**31 + 2**10 + 3
    if torch.cuda.mem_get_info()[0] < 16 * size:
        pytest.skip("needs 32 GiB of free device memory")
    large = torch.nn.Parameter(torch.ones(size, dtype=torch.bfloat16, device="cuda"))
    small = torch.nn.Parameter(torch.ones(2048, dtype=torch.bfloat16, device="cuda"))
    small.grad = torch.randn_like(small)
    large.grad = torch.zeros_like(large)
    large.grad[-2048:] = small.grad
    optimizer = AdaBelief([large, small], fused=True, lr=0.1)
    optimizer.step()
    assert torch.equal(large[-2048:], small)
    assert torch.equal(optimizer.state[large]["exp_avg_var"][-2048:], optimizer.state[small]["exp_avg_var"])
    assert (large[:-2048] == 1).all()


def test_a_state_saved_on_the_cpu_goes_on_on_the_device():
    p = torch.nn.Parameter(torch.ones(5))
    p.grad = torch.ones(5)
    optimizer = AdaBelief([p])
    optimizer.step()
    for path in ({"foreach": True}, {"fused": True}):
        q = torch.nn.Parameter(p.detach().cuda())
        q.grad = torch.ones_like(q)
        other = AdaBelief([q], **path)
        other.load_state_dict(optimizer.state_dict())
        other.step()
        assert other.state[q]["exp_avg"].is_cuda
        assert other.state[q]["step"].is_cuda == ("fused" in path)
        after = torch.nn.Parameter(p.detach().clone())
        after.grad = torch.ones(5)
        there = AdaBelief([after])
        there.load_state_dict(optimizer.state_dict())
        there.step()
        assert torch.equal(q.cpu(), after)
