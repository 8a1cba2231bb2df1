"""The PyTorch adapter beside torch.optim and adabelief-pytorch. `slow` as argument: without numba."""

import contextlib
import io
import resource
import sys

FAST = sys.argv[1:] != ["slow"]
if not FAST:
    sys.modules["numba"] = None  # as where the extra `fast` is not installed

import psutil
import torch
from adabelief_pytorch import AdaBelief as Peer
from common import LARGE, ROUNDS, SMALL, median_ms, report

from adabelief_torch import AdaBelief

OURS = "adabelief_torch" + (" with fast" if FAST else "")
HOW = "" if FAST else ", without numba"


def parameters(shapes):
    params = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    for p in params:
        p.grad = torch.randn_like(p) * 0.1
    return params


def quiet(make):
    with contextlib.redirect_stdout(io.StringIO()):
        return make()


def peak_memory():
    """Bytes a parameter by which the first steps' peak lies above parameters, gradients and the two moments."""
    AdaBelief(parameters([(8,)])).step()  # what is loaded and compiled once
    params = parameters([(LARGE,)])
    before = psutil.Process().memory_info().rss
    optimizer = AdaBelief(params)
    optimizer.step()
    optimizer.step()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return grown / LARGE - 8


def contenders(params):
    """The ways to step that torch's own AdamW has as well, each beside it."""
    adamw = torch.optim.AdamW
    steps = {OURS: AdaBelief(params)}
    if FAST:
        steps["adabelief_torch(fused=True)"] = AdaBelief(params, fused=True)
    steps |= {
        "AdamW(fused=True)": adamw(params, fused=True),
        "adabelief_torch(foreach=True)": AdaBelief(params, foreach=True),
        "AdamW(foreach=True)": adamw(params, foreach=True),
        "AdamW, loop": adamw(params, foreach=False, fused=False),
    }
    steps = {name: optimizer.step for name, optimizer in steps.items()}
    steps["adabelief-pytorch 0.2.1"] = quiet(lambda: Peer(params, print_change_log=False, rectify=False)).step
    return steps


memory = peak_memory()
for case, shapes, rounds in (
    (f"PyTorch, {LARGE // 10**6} million float32", [(LARGE,)], ROUNDS),
    (f"PyTorch, {len(SMALL)} small tensors", SMALL, 20 * ROUNDS),
):
    steps = contenders(parameters(shapes))
    # By themselves: what a slow one leaves in the cache is no part of a training.
    fused = {name: step for name, step in steps.items() if name == OURS or "fused=True" in name}
    others = {name: step for name, step in steps.items() if name == OURS or name not in fused}
    notes = {OURS: f"peak beyond the two moments: {memory:.2f} bytes a parameter"} if len(shapes) == 1 else {}
    report(f"{case}, fused{HOW}", OURS, median_ms(fused, rounds), notes)
    report(f"{case}{HOW}", OURS, median_ms(others, rounds))

params = parameters([(LARGE,)])
for p in params:
    p.grad, p.data = None, p.data.bfloat16()
    p.grad = torch.randn_like(p) * 0.1
kahan = f"{OURS}, kahan_sum"
steps = {kahan: AdaBelief(params, kahan_sum=True).step, OURS: AdaBelief(params).step}
steps["AdamW(fused=True)"] = torch.optim.AdamW(params, fused=True).step  # its moments are bfloat16, too
report(f"PyTorch, {LARGE // 10**6} million bfloat16{HOW}", kahan, median_ms(steps, ROUNDS))

if FAST:
    params = parameters(SMALL[::5])
    compiled = f"{OURS}, compiled"
    steps = {compiled: torch.compile(AdaBelief(params).step), OURS: AdaBelief(params).step}
    steps["AdamW, compiled"] = torch.compile(torch.optim.AdamW(params).step)
    report(f"PyTorch, {len(params)} small tensors, torch.compile", compiled, median_ms(steps, 20 * ROUNDS))
