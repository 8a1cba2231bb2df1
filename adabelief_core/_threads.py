"""Share work on elements among threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

_SERIAL = 500_000
"""Elements in all below which waking threads costs more than it saves."""

T = TypeVar("T")


def run_shares(
    work: Callable[[list[tuple[T, int, int]]], None], sizes: Sequence[int], threads: int | None, items: Sequence[T]
) -> None:
    """Call `work` on the elements of all items, shared evenly among threads.

    Args:
        work: Takes a list of (item, first element, end).
        sizes: Elements of each item.
        threads: The most threads. None: the cores this process may use, 8 at the most.
        items: What the sizes belong to.
    """
    total = sum(sizes)
    count = threads_for(total, threads)
    if count == 1:
        work([(item, 0, size) for item, size in zip(items, sizes, strict=True)])
        return
    shares = _shares(items, sizes, -(-total // count))
    others = [_pool(count - 1, os.getpid()).submit(work, share) for share in shares[1:]]
    try:
        work(shares[0])
    finally:
        for other in others:
            other.result()


def threads_for(total: int, threads: int | None) -> int:
    """How many threads work on as many elements.

    Args:
        total: Elements in all.
        threads: The most. None: the cores this process may use, 8 at the most.
    """
    if total < _SERIAL:
        return 1
    return min(_cores(), 8) if threads is None else threads


@lru_cache(maxsize=1)
def _pool(workers: int, process: int) -> ThreadPoolExecutor:
    """Threads that wait for work. They do not live on in a forked process, which needs its own."""
    return ThreadPoolExecutor(workers, thread_name_prefix="adabelief")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shares(items: Sequence[T], sizes: Sequence[int], most: int) -> list[list[tuple[T, int, int]]]:
    """Cut the items into runs of `most` elements."""
    shares: list[list[tuple[T, int, int]]] = [[]]
    free = most
    for item, size in zip(items, sizes, strict=True):
        start = 0
        while start < size:
            if not free:
                shares.append([])
                free = most
            end = min(start + free, size)
            shares[-1].append((item, start, end))
            free -= end - start
            start = end
    return shares
