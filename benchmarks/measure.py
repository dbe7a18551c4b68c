"""Timing two or more ways of doing the same thing in turn, so that a drifting machine is fair to all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median


def in_turn(ways: Mapping[str, Callable[[], object]], rounds: int = 9, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of each way in each round; the ways of a round run one after the other."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for at in range(warm_up + rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if at >= warm_up:
                times[name].append(time.perf_counter() - started)
    return times


def ratio(times: Mapping[str, list[float]], ours: str, peer: str) -> float:
    """Median over rounds of ours / peer, pair by pair."""
    return median(one / other for one, other in zip(times[ours], times[peer], strict=True))


def line(what: str, ours: float, peer: float, ratio: float, bar: str) -> None:
    """Print one result: milliseconds, the ratio and what was promised."""
    print(f"{what:<58} {ours * 1e3:9.1f} ms  peer {peer * 1e3:9.1f} ms  ratio {ratio:6.3f}  ({bar})", flush=True)
