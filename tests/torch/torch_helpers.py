"""What the tests of this folder share."""

import pytest
import torch

OPTIONS = {
    "betas": (0.8, 0.99),
    "eps": 1e-8,
    "eps_root": 1e-12,
    "weight_decay": 0.1,
    "rectify": True,
    "amsgrad": True,
    "nesterov": True,
    "update_clip": 0.3,
    "maximize": True,
}
PATHS = pytest.mark.parametrize("foreach", [None, True, False])


def parameter(*shape, dtype=torch.float32, seed=0):
    return torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype))


def give_grads(optimizer, seed):
    generator = torch.Generator().manual_seed(seed)
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


def steps(optimizer, count, start=0):
    for t in range(start, start + count):
        give_grads(optimizer, t)
        optimizer.step()


def assert_same(a, b):
    ps, qs = ([p for group in optimizer.param_groups for p in group["params"]] for optimizer in (a, b))
    for p, q in zip(ps, qs, strict=True):
        assert torch.equal(p, q)
        assert a.state[p].keys() == b.state[q].keys()
        for key, x in a.state[p].items():
            y = b.state[q][key]
            assert x.dtype is y.dtype
            assert torch.equal(x, y)
