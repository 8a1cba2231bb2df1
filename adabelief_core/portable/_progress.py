"""A bar for loops over a run's tensors, where someone watches them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")
Show = Callable[[Collection[Any], str], Iterable[Any]]
"""Passes the items on, and shows how far it is with what it is told that is done to them."""

_show: ContextVar[Show | None] = ContextVar("show", default=None)


def watched(items: Collection[T], doing: str) -> Iterable[T]:
    """The items of a loop, one after the other; nothing is shown unless `watching` says how."""
    show = _show.get()
    return items if show is None else show(items, doing)


@contextlib.contextmanager
def watching(show: Show) -> Iterator[None]:
    """Show the loops in here."""
    token = _show.set(show)
    try:
        yield
    finally:
        _show.reset(token)


def bar(items: Collection[Any], doing: str) -> Iterable[Any]:
    """tqdm's bar on the standard error, if that is a terminal."""
    from tqdm import tqdm

    shown: Iterable[Any] = tqdm(items, desc=doing, unit=" tensors", leave=False, disable=None)
    return shown
