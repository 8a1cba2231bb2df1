"""Run the rule in place over many arrays of any layout and dtype, in blocks and on several threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.util import find_spec
from typing import Literal, NamedTuple, get_args

import numpy as np

from adabelief_core import _kernel_numpy
from adabelief_core._hyperparameters import Variant
from adabelief_core._kernel_numpy import BLOCK
from adabelief_core._rule import Coefficients

Kernel = Literal["numpy", "numba", "readable"]

_SERIAL = 1_000_000
"""Elements in all below which starting threads costs more than it saves."""


class Job(NamedTuple):
    """One array's step. All arrays have one shape; any strides."""

    p: np.ndarray
    """Parameter: float16, bfloat16, float32 or float64."""
    g: np.ndarray
    """Gradient, of any of these dtypes; only read."""
    m: np.ndarray
    s: np.ndarray
    """Moments, in the compute dtype."""
    v: np.ndarray | None
    """Largest s so far, under amsgrad."""
    c: Coefficients
    variant: Variant


def compute_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype of moments and arithmetic: float64 for float64, float32 for what is narrower.

    Args:
        dtype: float16, bfloat16 (ml_dtypes), float32, float64, complex64 or complex128. A complex
            number is a pair of reals.

    Raises:
        TypeError: Any other dtype.

    Example:
        >>> from adabelief_core import compute_dtype
        >>> compute_dtype(np.dtype("float16"))
        dtype('float32')
    """
    if dtype.name in ("float16", "bfloat16", "float32", "complex64") and dtype.isnative:
        return np.dtype(np.float32)
    if dtype.name in ("float64", "complex128") and dtype.isnative:
        return np.dtype(np.float64)
    raise TypeError(
        f"Invalid dtype: {dtype.str if dtype.names is None else dtype} (expected float16, bfloat16, float32, float64, "
        "complex64 or complex128, in native byte order)"
    )


def as_reals(x: np.ndarray) -> np.ndarray:
    """A view of x in which a complex number is a pair of reals on a new last axis; x if it is real."""
    if x.dtype.kind != "c":
        return x
    return x[..., np.newaxis].view(x.real.dtype)


@lru_cache(maxsize=1)
def default_kernel() -> Kernel:
    """numba where the extra `fast` is installed, else NumPy."""
    return "numba" if find_spec("numba") else "numpy"


def check_kernel(kernel: str | None) -> None:
    """Refuse a kernel that does not exist or is not installed."""
    if kernel is not None and kernel not in get_args(Kernel):
        raise ValueError(f"Invalid kernel: {kernel!r} (expected None or one of {', '.join(get_args(Kernel))})")
    if kernel == "numba" and not find_spec("numba"):
        raise ImportError("kernel='numba' needs numba: pip install 'adabelief[fast]'")


def _runner(kernel: Kernel) -> tuple[Callable[[Coefficients, Variant], Callable[..., None]], int]:
    """What makes the kernel of a step, and the most elements that it takes at once."""
    if kernel == "numba":
        from adabelief_core._kernel_numba import compiled

        return compiled, 2**62
    return (_kernel_numpy.blocked if kernel == "numpy" else _kernel_numpy.readable), BLOCK


def update_inplace(jobs: Sequence[Job], *, kernel: Kernel | None = None, threads: int | None = None) -> None:
    """One step of the rule on each job's memory: the bits of `adabelief_core.update`, in place.

    Works in blocks of preallocated scratch, without temporaries of the arrays' size. Half-precision
    parameters are widened to float32 a block at a time and rounded once, to nearest even, when
    stored. Nothing is checked: the caller has.

    Args:
        jobs: The arrays.
        kernel: "numpy", "numba" (the extra `fast`) or "readable" (the rule itself). None: the fastest
            that is installed.
        threads: The most threads. None: the cores this process may use, 8 at the most. Less than a
            million elements are worked on by one.

    Example:
        >>> from adabelief_core import Hyperparameters, Job, coefficients, update_inplace
        >>> h = Hyperparameters(lr=0.1)
        >>> p, g, m, s = np.ones(1), np.full(1, 0.5), np.zeros(1), np.zeros(1)
        >>> update_inplace([Job(p, g, m, s, None, coefficients(h, 1, p.dtype), h.variant)])
        >>> p.round(6)
        array([0.888889])
    """
    run = _runner(kernel or default_kernel())
    total = sum(job.p.size for job in jobs)
    if threads is None:
        threads = min(_cores(), 8)
    if total < _SERIAL or threads < 2:
        _work(run, [(job, 0, job.p.size) for job in jobs])
        return
    shares = _shares(jobs, -(-total // threads))
    with ThreadPoolExecutor(len(shares) - 1) as pool:
        others = [pool.submit(_work, run, share) for share in shares[1:]]
        _work(run, shares[0])
        for other in others:
            other.result()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shares(jobs: Sequence[Job], size: int) -> list[list[tuple[Job, int, int]]]:
    """Cut the jobs into runs of `size` elements: (job, first element, end)."""
    shares: list[list[tuple[Job, int, int]]] = [[]]
    free = size
    for job in jobs:
        start = 0
        while start < job.p.size:
            if not free:
                shares.append([])
                free = size
            end = min(start + free, job.p.size)
            shares[-1].append((job, start, end))
            free -= end - start
            start = end
    return shares


def _work(
    run: tuple[Callable[[Coefficients, Variant], Callable[..., None]], int], share: list[tuple[Job, int, int]]
) -> None:
    make, most = run
    c = variant = None
    # An overflow is the user's to find in the parameters, as in every framework, not a warning here.
    with np.errstate(all="ignore"):
        for job, start, end in share:
            if job.c is not c or job.variant is not variant:
                c, variant = job.c, job.variant
                kernel = make(c, variant)
            for block in _blocks([x for x in job[:5] if x is not None], start, end, most):
                if job.v is None:
                    kernel(*block, block[3])  # a v that is not touched
                else:
                    kernel(*block)


def _blocks(arrays: Sequence[np.ndarray], start: int, end: int, most: int) -> Iterator[Sequence[np.ndarray]]:
    """The elements start..end of all arrays, as one-dimensional arrays of the compute dtype."""
    if start == end:
        return
    dtype = arrays[2].dtype
    if all([x.flags.c_contiguous and x.dtype == dtype for x in arrays]):  # noqa: C419 - a generator costs twice as much
        flat = [x.reshape(-1) for x in arrays]
        if end - start == flat[0].size <= most:
            yield flat
            return
        for i in range(start, end, most):
            yield [x[i : min(i + most, end)] for x in flat]
        return
    # Other strides and dtypes: NumPy's iterator copies a block at a time into its buffers, and back.
    # It must not fill them before it knows its range: it would write them back over another thread's work.
    iterator = np.nditer(  # type: ignore[call-overload]
        arrays,
        flags=["external_loop", "buffered", "ranged", "delay_bufalloc"],
        op_flags=[["readwrite"], ["readonly"], *(["readwrite"] for _ in arrays[2:])],
        op_dtypes=[dtype] * len(arrays),
        casting="unsafe",
        buffersize=BLOCK,
    )
    with iterator:
        iterator.iterrange = (start, end)
        yield from iterator
