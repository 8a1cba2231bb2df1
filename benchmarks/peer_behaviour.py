"""What each optimizer does besides its steps: every cell is what a probe saw."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
import torch
from peer_packages import HYPER, torch_optimizers
from peer_timm import timm_adabelief

import adabelief_jax

Build = Callable[..., torch.optim.Optimizer]
SIZE = 37
CALM = 1000


def behaviour() -> tuple[list[str], list[list[str]]]:
    """The table's header and rows."""
    header = ["", "state of bfloat16", "state of float16", "… saved and loaded", "bfloat16 s, calm",
              "bfloat16 of 1", "deep copy", "float16 memory", "amsgrad under rectify", "prints"]  # fmt: skip
    rows = []
    builds = torch_optimizers()
    compensated = {"adabelief_torch, kahan_sum": partial(builds["adabelief_torch"], kahan_sum=True)}
    for label, build in {**compensated, **builds}.items():
        row = [state_dtypes(stepped(build, dtype)) for dtype in (torch.bfloat16, torch.float16)]
        probes = (loaded_dtypes, calm, small_steps, deep_copy, memory, amsgrad_under_rectify)
        rows.append([label, *row, *(probe(build) for probe in probes), printed(label, build)])
    for label, make in (("adabelief_jax", adabelief_jax.adabelief), ("optax", optax.adabelief)):
        dtypes = [optax_dtypes(make, dtype) for dtype in (jnp.bfloat16, jnp.float16)]
        rows.append([label, *dtypes, "-", optax_calm(make), *["-"] * 5])
    return header, rows


def gradient(dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Standard normal numbers."""
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed)).to(dtype)


def stepped(build: Build, dtype: torch.dtype, count: int = 3, **options: Any) -> torch.optim.Optimizer:
    """An optimizer of one parameter of ones, after some steps."""
    p = torch.nn.Parameter(torch.ones(SIZE, dtype=dtype))
    optimizer = build([p], **HYPER, **options)
    for t in range(count):
        p.grad = gradient(dtype, t)
        optimizer.step()
    return optimizer


def sole(optimizer: torch.optim.Optimizer) -> torch.nn.Parameter:
    """Its one parameter."""
    return optimizer.param_groups[0]["params"][0]


def state_dtypes(optimizer: torch.optim.Optimizer) -> str:
    """The dtypes of its moments."""
    state = optimizer.state[sole(optimizer)].values()
    found = {str(x.dtype).removeprefix("torch.") for x in state if torch.is_tensor(x) and x.shape == (SIZE,)}
    return ", ".join(sorted(found))


def loaded_dtypes(build: Build) -> str:
    """The moments' dtypes after a float16 run is saved and loaded."""
    file = io.BytesIO()
    torch.save(stepped(build, torch.float16).state_dict(), file)
    file.seek(0)
    optimizer = build([torch.nn.Parameter(torch.ones(SIZE, dtype=torch.float16))], **HYPER)
    optimizer.load_state_dict(torch.load(file, weights_only=False))
    return state_dtypes(optimizer)


def calm(build: Build) -> str:
    """A bfloat16 run's s after one gradient of 1 and `CALM` of 0, over what float64 has then."""
    return f"{left(build, torch.bfloat16) / calm_float64():.2f}"


@cache
def calm_float64() -> float:
    """What is left in float64, in which all agree."""
    return left(torch_optimizers()["adabelief_torch"], torch.float64)


def left(build: Build, dtype: torch.dtype) -> float:
    """The largest s after those gradients."""
    p = torch.nn.Parameter(torch.ones(SIZE, dtype=dtype))
    optimizer = build([p], **HYPER)
    for t in range(1 + CALM):
        p.grad = torch.full_like(p, float(t == 0))
        optimizer.step()
    return float(optimizer.state[p]["exp_avg_var"].max())


def small_steps(build: Build) -> str:
    """Which of some bfloat16 parameters of 1 have moved after 100 steps of about 1e-3 in one direction."""
    p = torch.nn.Parameter(torch.ones(SIZE, dtype=torch.bfloat16))
    optimizer = build([p], **HYPER)
    for t in range(100):
        p.grad = 1 + gradient(p.dtype, t)
        optimizer.step()
    moved = int((p != 1).sum())
    return {0: "none moves", SIZE: "all move"}.get(moved, f"{moved} of {SIZE} move")


def deep_copy(build: Build) -> str:
    """Whether a copy of an optimizer takes the step that the original takes."""
    original = stepped(build, torch.float32, weight_decay=0.1)
    twin = copy.deepcopy(original)
    try:
        for optimizer in (original, twin):
            sole(optimizer).grad = gradient(torch.float32, 3)
            optimizer.step()
    except AttributeError as error:
        return f"its next step raises {type(error).__name__}"
    return "goes on alike" if torch.equal(sole(original), sole(twin)) else "goes on otherwise"


def memory(build: Build) -> str:
    """Whether a step leaves a float16 parameter where it is."""
    optimizer = stepped(build, torch.float16)
    p = sole(optimizer)
    before, view = p.data_ptr(), p.detach().view(-1)
    p.grad = gradient(p.dtype, 3)
    optimizer.step()
    return "stays" if p.data_ptr() == before and torch.equal(view, p.detach()) else "moves"


def amsgrad_under_rectify(build: Build) -> str:
    """Whether amsgrad changes a rectified run whose gradients shrink."""
    ends = []
    for amsgrad in (False, True):
        p = torch.nn.Parameter(torch.ones(SIZE, dtype=torch.float64))
        optimizer = build([p], **{**HYPER, "betas": (0.9, 0.9)}, rectify=True, amsgrad=amsgrad)
        for t in range(50):
            p.grad = gradient(p.dtype, t) * 0.9**t
            optimizer.step()
        ends.append(p.detach())
    return "no effect" if torch.equal(*ends) else "works"


def printed(label: str, build: Build) -> str:
    """Characters that its constructor prints with its own defaults."""
    if label == "adabelief-pytorch":
        from adabelief_pytorch import AdaBelief as build  # the one that `torch_optimizers` silences
    elif label == "timm":
        build = timm_adabelief()
    out = io.StringIO()
    with redirect_stdout(out):
        build([torch.nn.Parameter(torch.ones(1))])
    return f"{len(out.getvalue())} characters" if out.getvalue() else "nothing"


def optax_calm(make: Callable[..., optax.GradientTransformation]) -> str:
    """`calm` of a transformation."""
    optimizer = make(HYPER["lr"])
    p = jnp.ones(SIZE, jnp.bfloat16)
    step, state = jax.jit(optimizer.update), optimizer.init(p)
    for t in range(1 + CALM):
        _, state = step(jnp.full_like(p, t == 0), state, p)
    _, s = (x for x in jax.tree.leaves(state) if x.shape == (SIZE,))
    return f"{float(s.max()) / calm_float64():.2f}"


def optax_dtypes(make: Callable[..., optax.GradientTransformation], dtype: Any) -> str:
    """The dtypes of a transformation's moments after a step."""
    optimizer = make(HYPER["lr"])
    p = jnp.ones(SIZE, dtype)
    _, state = optimizer.update(p, optimizer.init(p), p)
    found = {str(x.dtype) for x in jax.tree.leaves(state) if x.shape == (SIZE,)}
    return ", ".join(sorted(found))
