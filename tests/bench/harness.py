"""The one form of every benchmark: ours against a peer, in one run, alternating, best of N.

A benchmark is a module here with a `main()`; `python -m tests.bench.NAME` runs it, and its last
line is one JSON object {"bench", "ours", "peer", "unit", "ratio"}. Nothing asserts a time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable


def best_rate(work: Callable[[], float]) -> float:
    """One timed call: the amount of work it says it did, per second of wall time."""
    begin = time.perf_counter()
    amount = work()
    return amount / (time.perf_counter() - begin)


def compare(
    bench: str,
    ours: Callable[[], float],
    peer: Callable[[], float],
    unit: str,
    *,
    rounds: int = 10,
    rate: Callable[[Callable[[], float]], float] = best_rate,
    warm_up: bool = True,
) -> dict[str, str | float]:
    """Both sides once to warm up (unless told), then `rounds` times in turns; each side's best
    rate counts.

    Each side does some work and returns how much (in what `unit` counts per second). Prints
    progress and, as the last line, the result.
    """
    if warm_up:
        ours()
        peer()
    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    for number in range(rounds):
        # The side that goes second may find warmer caches, or a cooler core: take turns.
        sides = [("ours", ours), ("peer", peer)]
        for name, work in sides if number % 2 == 0 else reversed(sides):
            rates[name].append(rate(work))
        print(
            f"{bench}: round {number + 1}/{rounds}", *(f"{n} {r[-1]:.4g}" for n, r in rates.items())
        )
    best = {name: max(found) for name, found in rates.items()}
    result: dict[str, str | float] = {
        "bench": bench,
        "ours": round(best["ours"], 3),
        "peer": round(best["peer"], 3),
        "unit": unit,
        "ratio": round(best["ours"] / best["peer"], 3),
    }
    print(json.dumps(result), flush=True)
    return result
