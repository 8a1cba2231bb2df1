"""The same parity on a CUDA device."""

import pytest
import torch

from adabelief_core.parity import DTYPES, check, covering, quick
from adabelief_torch import AdaBelief
from adabelief_torch._parity import adapter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def cuda_mode(name):
    return next(mode for mode in adapter.modes() if (mode.device, mode.name) == ("cuda", name))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["foreach", "single"])
def test_every_option_and_pair_of_options_has_the_rules_bits(name, dtype):
    broken = {p.name: result for p in covering(dtype) if (result := check(cuda_mode(name), p)).differing}
    assert not broken


def test_ten_thousand_steps_have_the_rules_bits():
    for problem in quick("float32", steps=10_000, tensors=("odd", "scalar")):
        assert not check(cuda_mode("foreach"), problem).differing


def test_graph_capture_is_refused_before_anything_changes():
    p = torch.nn.Parameter(torch.ones(5, device="cuda"))
    p.grad = torch.ones_like(p)
    optimizer = AdaBelief([p])
    optimizer.step()
    before = p.detach().clone()
    with pytest.raises(RuntimeError, match="CUDA graph capture"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        optimizer.step()
    assert torch.equal(p, before)


def test_a_state_saved_on_the_cpu_goes_on_on_the_device():
    p = torch.nn.Parameter(torch.ones(5))
    p.grad = torch.ones(5)
    optimizer = AdaBelief([p])
    optimizer.step()
    q = torch.nn.Parameter(p.detach().cuda())
    q.grad = torch.ones_like(q)
    other = AdaBelief([q])
    other.load_state_dict(optimizer.state_dict())
    optimizer.step()
    other.step()
    assert other.state[q]["exp_avg"].is_cuda
    assert not other.state[q]["step"].is_cuda
    assert torch.equal(q.cpu(), p)
