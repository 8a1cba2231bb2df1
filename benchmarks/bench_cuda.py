"""The PyTorch adapter's fused kernel on a CUDA device, beside torch.optim and the device's copy bandwidth."""

import sys

import torch
from common import ROUNDS, median_ms, report

if not torch.cuda.is_available():
    print("bench_cuda.py: skipped, no CUDA device", file=sys.stderr)
    sys.exit()

from adabelief_torch import AdaBelief

OURS = "adabelief_torch(fused=True)"
LARGE = 100_000_000
SMALL = 1000
BYTES = 28
"""What a step moves a float32 parameter: p, g, m and s are read, p, m and s are written."""


def parameters(shapes):
    params = [torch.nn.Parameter(torch.ones(shape, device="cuda")) for shape in shapes]
    for p in params:
        p.grad = torch.randn_like(p) * 0.1
    return params


def waited_for(call):
    """The call, and until the device has done what it asked for."""

    def run():
        call()
        torch.cuda.synchronize()

    return run


def copy_bandwidth():
    """Bytes a millisecond, read and written, of a copy of `LARGE` floats."""
    a, b = (torch.ones(LARGE, device="cuda") for _ in range(2))
    times = median_ms({"copy": waited_for(lambda: a.copy_(b))}, 4 * ROUNDS)
    return 8 * LARGE / times["copy"]


bandwidth = copy_bandwidth()
print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}: copies move {bandwidth / 1e9:.2f} TB/s")
for case, shapes, rounds in (
    (f"CUDA, {LARGE // 10**6} million float32", [(LARGE,)], 4 * ROUNDS),
    (f"CUDA, {SMALL} tensors of 64 and 4096 float32", [(64,), (64, 64)] * (SMALL // 2), 10 * ROUNDS),
):
    params = parameters(shapes)
    steps = {
        OURS: AdaBelief(params, fused=True).step,
        "AdamW(fused=True)": torch.optim.AdamW(params, fused=True).step,
        "AdamW(foreach=True)": torch.optim.AdamW(params, foreach=True).step,
    }
    times = median_ms({name: waited_for(step) for name, step in steps.items()}, rounds)
    moved = BYTES * sum(p.numel() for p in params)
    shares = {name: f"{moved / ms / bandwidth:.0%} of the copy bandwidth" for name, ms in times.items()}
    report(case, OURS, times, shares)
    for name, ms in times.items():
        print(f"{case}: {name} {ms:.3f} ms, ours / it {times[OURS] / ms:.2f}, {shares[name]}")
    del params, steps
    torch.cuda.empty_cache()
