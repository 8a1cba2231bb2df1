"""Run numba's kernel on memory: many arrays a call, by their addresses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from adabelief_core._hyperparameters import Variant
from adabelief_core._kernel_numba import counting_kernel, stored, table_kernel
from adabelief_core._rule import Coefficients
from adabelief_core._threads import run_shares, threads_for

if TYPE_CHECKING:
    from adabelief_core._inplace import Job


class Layout(NamedTuple):
    """Names of the dtypes of p, g and the moments."""

    p: str
    g: str
    m: str


def update_memory(
    addresses: np.ndarray,
    sizes: np.ndarray,
    layout: Layout,
    c: Coefficients,
    variant: Variant,
    *,
    grad_scale: float | None = None,
    threads: int | None = None,
) -> None:
    """One step of the rule on many arrays at once: the bits of `adabelief_core.update`, in place.

    It needs the extra `fast`. Nothing is checked: the caller vouches for the memory.

    Args:
        addresses: Of the first elements of p, g, m, s, v and k, int64, shape (6, n), each aligned to its dtype. The
            elements of an array follow one another. v without amsgrad and k without kahan are not touched, but must
            be those of some array, m say.
        sizes: Elements of each array, int64, shape (n,).
        layout: Dtypes: float16, bfloat16, float32 or float64 for p and g; m, s, v and k are of the compute dtype.
        c: Coefficients of this step.
        variant: The lines that run.
        grad_scale: What the gradients are divided by first, in the compute dtype. None: nothing.
        threads: As `update_inplace`.
    """
    wide = np.dtype(layout.m)
    numbers, scale = tuple(c[:-1]), wide.type(1.0 if grad_scale is None else grad_scale)
    kernel = table_kernel(variant, layout, bool(c.adaptive), grad_scale is not None)
    if threads_for(int(sizes.sum()), threads) == 1:
        kernel(numbers, scale, np.ascontiguousarray(addresses), np.ascontiguousarray(sizes))
        return
    steps = np.array([stored(layout.p).itemsize, stored(layout.g).itemsize, *[wide.itemsize] * 4])

    def work(share: list[tuple[int, int, int]]) -> None:
        rows, starts, ends = np.array(share, np.int64).reshape(-1, 3).T
        first = np.ascontiguousarray(addresses[:, rows] + steps[:, None] * starts)
        kernel(numbers, scale, first, np.ascontiguousarray(ends - starts))

    run_shares(work, sizes.tolist(), threads, range(len(sizes)))


def count_steps(addresses: np.ndarray) -> np.ndarray:
    """Add 1 to the step counts at these addresses, which are float32.

    Args:
        addresses: int64, shape (n,).

    Returns:
        The new counts, float32, shape (n,).
    """
    steps = np.empty(len(addresses), np.float32)
    counting_kernel()(addresses, steps)
    return steps


def as_stored(x: np.ndarray) -> np.ndarray:
    """A view of x in the dtype under which the kernels read and write it."""
    return x.view(stored(x.dtype.name))


def update_contiguous(jobs: Sequence[Job], threads: int | None) -> list[Job]:
    """Carry out the jobs whose arrays are all contiguous and aligned; the others are returned."""
    tables: dict[tuple[Any, ...], list[Job]] = {}
    others = []
    for job in jobs:
        if all([x is None or (x.flags.c_contiguous and x.flags.aligned) for x in job[:6]]):  # noqa: C419 - twice as fast
            tables.setdefault((id(job.c), job.variant, _layout(job)), []).append(job)
        else:
            others.append(job)
    for (_, variant, layout), alike in tables.items():
        addresses = np.array([[_address(job.m if x is None else x) for x in job[:6]] for job in alike], np.int64).T
        sizes = np.array([job.p.size for job in alike], np.int64)
        update_memory(addresses, sizes, layout, alike[0].c, variant, threads=threads)
    return others


def compiled(job: Job) -> Callable[..., None]:
    """The job's step on contiguous, aligned arrays p, g, m, s, v, k of any length, as `as_stored` has them."""
    kernel = table_kernel(job.variant, _layout(job), bool(job.c.adaptive), False)
    numbers, scale = tuple(job.c[:-1]), job.m.dtype.type(1.0)

    def step(*arrays: np.ndarray) -> None:
        addresses = np.array([[_address(x)] for x in arrays], np.int64)
        kernel(numbers, scale, addresses, np.array([arrays[0].size]))

    return step


def _layout(job: Job) -> Layout:
    return Layout(job.p.dtype.name, job.g.dtype.name, job.m.dtype.name)


def _address(x: np.ndarray) -> int:
    return x.__array_interface__["data"][0]  # type: ignore[no-any-return]
