"""Run the rule in place over many arrays of any layout and dtype, in blocks and on several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from adabelief_core import _kernel_numpy
from adabelief_core._hyperparameters import Variant
from adabelief_core._kernel_numpy import BLOCK
from adabelief_core._rule import Coefficients
from adabelief_core._threads import run_shares

Kernel = Literal["numpy", "numba", "readable"]


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
    k: np.ndarray | None
    """Compensation of the parameter's sum, under kahan."""
    c: Coefficients
    variant: Variant


def compute_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype of moments and arithmetic: float64 for float64, float32 for what is narrower.

    Args:
        dtype: float16, bfloat16 (ml_dtypes), float32, float64, complex64 or complex128. A complex
            number is a pair of reals.

    Raises:
        TypeError: Any other dtype.

    Examples:
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

    Examples:
        >>> from adabelief_core import Hyperparameters, Job, coefficients, update_inplace
        >>> h = Hyperparameters(lr=0.1)
        >>> p, g, m, s = np.ones(1), np.full(1, 0.5), np.zeros(1), np.zeros(1)
        >>> update_inplace([Job(p, g, m, s, None, None, coefficients(h, 1, p.dtype), h.variant)])
        >>> p.round(6)
        array([0.888889])
    """
    kernel = kernel or default_kernel()
    if kernel == "numba":
        from adabelief_core.memory import compiled, update_contiguous

        jobs = update_contiguous(jobs, threads)
        work = _Work(compiled, stored=True)
    else:
        work = _Work(_kernel_numpy.blocked if kernel == "numpy" else _kernel_numpy.readable, stored=False)
    run_shares(work, [job.p.size for job in jobs], threads, jobs)


class _Work:
    """Runs a kernel over shares of jobs, in blocks.

    Args:
        make: Makes the kernel of a job's step.
        stored: Whether the kernel reads and writes half precision itself.
    """

    def __init__(self, make: Callable[[Job], Callable[..., None]], stored: bool) -> None:
        self._make, self._stored = make, stored

    def __call__(self, share: Sequence[tuple[Job, int, int]]) -> None:
        """Work on elements start..end of each job: (job, start, end)."""
        # An overflow is the user's to find in the parameters, as in every framework, not a warning here.
        with np.errstate(all="ignore"):
            for job, start, end in share:
                if start == end:
                    continue
                kernel = self._make(job)
                for p, g, m, s, *rest in self._blocks(job, start, end):
                    v = rest.pop(0) if job.v is not None else s  # one that is not touched
                    kernel(p, g, m, s, v, rest[0] if rest else s)

    def _blocks(self, job: Job, start: int, end: int) -> Iterator[Sequence[np.ndarray]]:
        """The elements start..end of all arrays, one-dimensional, of the dtypes that the kernel takes."""
        arrays: list[Any] = [x for x in job[:6] if x is not None]
        if self._stored:
            from adabelief_core.memory import as_stored

            arrays = [as_stored(x) for x in arrays]
        wide = job.m.dtype
        dtypes = [x.dtype if self._stored else wide for x in arrays]
        if all(x.flags.c_contiguous and x.dtype == dtype for x, dtype in zip(arrays, dtypes, strict=True)):
            flat = [x.reshape(-1) for x in arrays]
            for i in range(start, end, BLOCK):
                yield [x[i : min(i + BLOCK, end)] for x in flat]
            return
        # Other strides and dtypes: NumPy's iterator copies a block at a time into its buffers, and back.
        # It must not fill them before it knows its range: it would write them back over another thread's work.
        iterator = np.nditer(  # type: ignore[call-overload]
            arrays,
            flags=["external_loop", "buffered", "ranged", "delay_bufalloc"],
            op_flags=[["readonly" if i == 1 else "readwrite", "aligned", "contig"] for i in range(len(arrays))],
            op_dtypes=dtypes,
            casting="unsafe",
            buffersize=BLOCK,
        )
        with iterator:
            iterator.iterrange = (start, end)
            yield from iterator
