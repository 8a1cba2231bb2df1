"""Timing that a noisy machine can bear: contenders take turns, medians are compared."""

from __future__ import annotations

import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Callable

ROUNDS = 15
LARGE = 20_000_000
SMALL = [(64,)] * 100 + [(64, 64)] * 50


def median_ms(contenders: dict[str, Callable[[], object]], rounds: int = ROUNDS, warm_up: int = 3) -> dict[str, float]:
    """Milliseconds of each contender's call: the median of as many rounds, each in an order drawn anew."""
    for call in contenders.values():
        for _ in range(warm_up):
            call()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    turns = list(contenders.items())
    order = random.Random(0)
    gc.disable()
    for _ in range(rounds):
        order.shuffle(turns)  # who comes before one leaves it a warm cache or a cold one
        for name, call in turns:
            start = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - start) * 1e3)
    gc.enable()
    return {name: statistics.median(values) for name, values in times.items()}


def report(case: str, ours: str, times: dict[str, float], notes: dict[str, str] | None = None) -> None:
    """Hand one case's medians to `run.py`."""
    print(json.dumps({"case": case, "ours": ours, "times": times, "notes": notes or {}}))
    sys.stdout.flush()
