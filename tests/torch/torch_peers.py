"""Other packages' optimizers, where they are installed, and how a run of theirs goes on here."""

import io

import pytest
import torch
from peer_timm import timm_adabelief

from adabelief_torch import AdaBelief

TIMM_NAMES = {"weight_decouple": "decoupled_decay"}


def adabelief_pytorch(params, **options):
    """adabelief-pytorch's, without its table."""
    return pytest.importorskip("adabelief_pytorch").AdaBelief(params, print_change_log=False, **options)


def timm(params, **options):
    """timm's, told in our names."""
    try:
        build = timm_adabelief()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    return build(params, **{TIMM_NAMES.get(key, key): value for key, value in options.items()})


def large_parameter(dtype, size=1_000):
    """Magnitudes in [1, 2): a few small steps keep them there, so that an ulp is one size for all."""
    generator = torch.Generator().manual_seed(0)
    p = 1 + torch.rand(size, generator=generator, dtype=torch.float64)
    sign = 2.0 * torch.randint(0, 2, (size,), generator=generator) - 1
    return torch.nn.Parameter((p * sign).to(dtype))


def together(optimizers, count, start=0, mean=0.0):
    """Steps of optimizers of one parameter each, with the same gradients."""
    params = [optimizer.param_groups[0]["params"][0] for optimizer in optimizers]
    for t in range(start, start + count):
        generator = torch.Generator().manual_seed(t)
        g = mean + torch.randn(params[0].shape, generator=generator, dtype=torch.float64)
        for p, optimizer in zip(params, optimizers, strict=True):
            # A copy each: adabelief-pytorch writes into it.
            p.grad = g.to(p.dtype, copy=True)
            optimizer.step()


def through_a_file(state_dict):
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def continued(source, **options):
    """AdaBelief with the parameter and the state of another optimizer."""
    (p,) = source.param_groups[0]["params"]
    optimizer = AdaBelief([p.detach().clone().requires_grad_()], **options)
    optimizer.load_state_dict(through_a_file(source.state_dict()))
    return optimizer


def sole(optimizer):
    """The one parameter of an optimizer, and its state."""
    (p,) = optimizer.param_groups[0]["params"]
    return p.detach(), optimizer.state[p]
