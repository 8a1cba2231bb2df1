"""AdaBelief in the words of torch's own optimizer tests: an `OptimizerInfo`."""

from copy import deepcopy

import pytest
import torch

pytest.importorskip("expecttest", reason="torch.testing._internal needs it")

from torch.testing._internal.common_optimizers import (
    ErrorOptimizerInput,
    OptimizerErrorEnum,
    OptimizerInfo,
    OptimizerInput,
    optim_db,
    optim_error_inputs_func_adamw,
)

from adabelief_torch import AdaBelief

_ADAMS = [info for info in optim_db if info.optim_cls in (torch.optim.Adam, torch.optim.AdamW)]


def _inputs(device, dtype=None):
    tensors = {"lr": torch.tensor(0.01), "betas": (torch.tensor([[[0.9]]]), torch.tensor([[0.99]]))}
    rows = {
        "default": {},
        "non-default lr": {"lr": 0.01},
        "weight_decay": {"weight_decay": 0.1},
        "coupled weight_decay, maximize": {"weight_decay": 0.1, "weight_decouple": False, "maximize": True},
        "fixed weight_decay, nesterov": {"weight_decay": 0.01, "fixed_decay": True, "nesterov": True},
        "rectify, amsgrad": {"rectify": True, "amsgrad": True, "eps": 1e-8, "eps_root": 1e-12},
        "kahan_sum": {"kahan_sum": True},
        "update_clip": {"update_clip": 0.1},
        # On a CPU, too, where AdamW asserts that there is nothing to capture.
        "capturable": {"capturable": True},
        "Tensor lr, Tensor betas, with capturable, rectify": {**tensors, "rectify": True, "capturable": True},
    }
    return [OptimizerInput(params=None, kwargs=kwargs, desc=desc) for desc, kwargs in rows.items()]


def _error_inputs(device, dtype):
    # AdamW's, which are in AdamW's words, and those of the options that it has not.
    def error(desc, kwargs, error_type, error_regex, params=None, error_on=OptimizerErrorEnum.CONSTRUCTION_ERROR):
        given = OptimizerInput(params=params, kwargs=kwargs, desc=desc)
        return ErrorOptimizerInput(given, error_on=error_on, error_type=error_type, error_regex=error_regex)

    p = torch.zeros(2, requires_grad=True)
    sparse = torch.zeros(2, requires_grad=True)
    sparse.grad = torch.ones(2).to_sparse()
    integers = torch.zeros(2, dtype=torch.int64)
    integers.grad = torch.ones(2, dtype=torch.int64)
    fixed = {"fixed_decay": True, "weight_decouple": False}
    return [
        *optim_error_inputs_func_adamw(device, dtype),
        error("eps_root", {"eps_root": -1.0}, ValueError, "Invalid eps_root value: -1.0"),
        error("fixed, but not decoupled", fixed, ValueError, "Invalid fixed_decay: True"),
        error("fused, foreach", {"fused": True, "foreach": True}, RuntimeError, "`fused` and `foreach` cannot be"),
        error("fused, differentiable", {"fused": True, "differentiable": True}, RuntimeError, "does not support"),
        error("sparse", {}, RuntimeError, "does not support sparse", [p, sparse], OptimizerErrorEnum.STEP_ERROR),
        error("integers", {}, TypeError, "dtype torch.int64", [p, integers], OptimizerErrorEnum.STEP_ERROR),
    ]


INFO = OptimizerInfo(
    AdaBelief,
    optim_inputs_func=_inputs,
    optim_error_inputs_func=_error_inputs,
    scheduler_inputs=[schedulers for info in _ADAMS for schedulers in info.scheduler_inputs],
    supported_impls=("foreach", "differentiable", "fused"),
    not_og_supported_flags=("foreach", "differentiable", "fused", "capturable", "kahan_sum"),
    supports_fused_on=("cpu", "cuda"),
    has_capturable_arg=True,
)
INPUTS = _inputs("cpu")
# Torch's own helper leaves foreach out on a CPU, where nothing takes it by itself.
CONFIGS = INPUTS + [
    OptimizerInput(params=None, kwargs={**given.kwargs, path: True}, desc=f"{given.desc} & {path}")
    for given in INPUTS
    for path in INFO.supported_impls
]
"""Each of the inputs with none of the paths asked for, and with each of them."""

each_input = pytest.mark.parametrize("given", INPUTS, ids=lambda given: given.desc)
each_config = pytest.mark.parametrize("given", CONFIGS, ids=lambda given: given.desc)


def build(params, given, **options):
    """An optimizer with options of its own tensors, and without what only some of its parameters could do."""
    return AdaBelief(params, **{**deepcopy(given.kwargs), **options})


def leaves(given, dtype=torch.float32, shapes=((10, 5), (10,), (), (3, 0))):
    """Parameters; autograd writes into no leaf that requires a gradient, so they do not where it records the step."""
    generator = torch.Generator().manual_seed(0)
    params = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    return [p.requires_grad_(not given.kwargs.get("differentiable")) for p in params]


def give_grads(params, seed):
    """The same gradients for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)


def steps(optimizer, params, count, start=0):
    """Steps with the same gradients for the same numbers."""
    for t in range(start, start + count):
        give_grads(params, t)
        optimizer.step()
