"""The peers, and this package, as functions that run them: parameters after each step, as float64 has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, redirect_stdout
from io import StringIO
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import torch
from peer_timm import timm_adabelief

import adabelief_core
import adabelief_jax
import adabelief_torch

Array = np.ndarray
Runner = Callable[[Array, Sequence[Array], str], Iterator[Array]]
"""(parameters, gradients, dtype) to the parameters after each step. Arrays are float64, and exact in the dtype."""

HYPER = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-16}


def numpy_dtype(name: str) -> np.dtype:
    """NumPy's dtype of this name; bfloat16 is ml_dtypes'."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def torch_optimizers() -> dict[str, Callable[..., torch.optim.Optimizer]]:
    """Label to a constructor that takes parameters and options in our names, and does not rectify unless told."""
    import adabelief_pytorch
    import pytorch_optimizer

    def theirs(params: Any, **options: Any) -> torch.optim.Optimizer:
        with redirect_stdout(StringIO()):
            return adabelief_pytorch.AdaBelief(params, **{"rectify": False, "print_change_log": False, **options})

    def timm(params: Any, **options: Any) -> torch.optim.Optimizer:
        return timm_adabelief()(params, **{"rectify": False, **options})

    def kozistr(foreach: bool) -> Callable[..., torch.optim.Optimizer]:
        def build(params: Any, **options: Any) -> torch.optim.Optimizer:
            named = {{"amsgrad": "ams_bound"}.get(name, name): value for name, value in options.items()}
            return pytorch_optimizer.AdaBelief(params, **{"foreach": foreach, **named})

        return build

    return {
        "adabelief_torch": adabelief_torch.AdaBelief,
        "adabelief-pytorch": theirs,
        "timm": timm,
        "pytorch_optimizer, foreach": kozistr(True),
        "pytorch_optimizer, loop": kozistr(False),
    }


def run_torch(build: Callable[..., torch.optim.Optimizer], **options: Any) -> Runner:
    """A `torch.optim.Optimizer` as a runner."""

    def run(start: Array, grads: Sequence[Array], dtype: str) -> Iterator[Array]:
        p = torch.nn.Parameter(torch.tensor(start, dtype=getattr(torch, dtype)))
        optimizer = build([p], **HYPER, **options)
        for g in grads:
            p.grad = torch.tensor(g, dtype=p.dtype)
            optimizer.step()
            yield p.detach().to(torch.float64, copy=True).numpy()

    return run


def run_optax(build: Callable[..., optax.GradientTransformation]) -> Runner:
    """A `GradientTransformation` as a runner, one `jit` a step."""

    def run(start: Array, grads: Sequence[Array], dtype: str) -> Iterator[Array]:
        # Without this, JAX has no float64; with it, float32 code meets float64 scalars, which is not what users run.
        with jax.enable_x64(True) if dtype == "float64" else nullcontext():
            (b1, b2), eps = HYPER["betas"], HYPER["eps"]
            optimizer = build(HYPER["lr"], b1=b1, b2=b2, eps=eps, eps_root=eps)

            @jax.jit
            def step(p: Any, g: Any, state: Any) -> tuple[Any, Any]:
                updates, state = optimizer.update(g, state, p)
                return optax.apply_updates(p, updates), state

            p = jnp.asarray(start, dtype)
            state = optimizer.init(p)
            for g in grads:
                p, state = step(p, jnp.asarray(g, dtype), state)
                yield np.asarray(p).astype(np.float64)

    return run


def run_core(start: Array, grads: Sequence[Array], dtype: str) -> Iterator[Array]:
    """The NumPy optimizer as a runner."""
    params = {"p": start.astype(numpy_dtype(dtype))}
    optimizer = adabelief_core.AdaBelief(params, **HYPER)
    for g in grads:
        optimizer.step({"p": g.astype(numpy_dtype(dtype))})
        yield params["p"].astype(np.float64)


def runners(dtype: str) -> dict[str, Runner]:
    """Label to runner, ours first."""
    ours = {"adabelief_core": run_core, "adabelief_jax": run_optax(adabelief_jax.adabelief)}
    built = {label: run_torch(build) for label, build in torch_optimizers().items()}
    ours["adabelief_torch"] = built.pop("adabelief_torch")
    if dtype in ("float16", "bfloat16"):
        ours["adabelief_torch, kahan_sum"] = run_torch(adabelief_torch.AdaBelief, kahan_sum=True)
    return {**ours, "optax": run_optax(optax.adabelief), **built}
