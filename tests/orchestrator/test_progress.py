"""What people see: plain lines where nobody watches, a table where somebody does."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from orchestrator import progress
from orchestrator.cells import Resources
from orchestrator.plan import Job
from orchestrator.progress import View


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock.monotonic)
    return clock


def view(count=4, terminal=False):
    jobs = {
        f"k{at}": Job(
            key=f"k{at}",
            kind="attack",
            parent=None,
            spec={},
            resources=Resources(),
            title=f"attack number {at}",
            group=("attack",),
        )
        for at in range(count)
    }
    sink = io.StringIO()
    console = Console(file=sink, force_terminal=terminal, width=100)
    return View(jobs, dict.fromkeys(jobs, 10.0), console), sink


def test_plain_lines_count_and_estimate_from_what_jobs_really_took(clock):
    shown, sink = view()
    with shown:
        assert shown.eta is None
        for at in range(2):
            shown.started(f"k{at}")
            clock.now += 20  # twice the estimate
            shown.finished(f"k{at}")
        # Two jobs of 10 estimated seconds are left, each taking twice that, on one slot.
        assert shown.eta == pytest.approx(40)
    assert "2/4 jobs (attack 2/4) in 40 s, about 40 s left" in sink.getvalue()
    assert "\x1b[" not in sink.getvalue()


def test_two_slots_halve_what_is_left(clock):
    shown, _ = view()
    shown.started("k0")
    shown.started("k1")
    clock.now += 10
    shown.finished("k0")
    shown.finished("k1")
    assert shown.eta == pytest.approx(10)


def test_failures_are_said_at_once(clock):
    shown, sink = view()
    shown.started("k0")
    shown.failed("k0", "ValueError: no", again=True)
    shown.failed("k0", "ValueError: no", again=False)
    text = sink.getvalue()
    assert "failed, will be tried again: attack number 0: ValueError: no" in text
    assert "failed for good: attack number 0: ValueError: no" in text


def test_a_terminal_shows_the_running_trials():
    shown, sink = view(terminal=True)
    with shown:
        shown.started("k2")
        shown._live.refresh()
    assert "attack number 2" in sink.getvalue()
    assert "0 of 4" in sink.getvalue()


@pytest.mark.parametrize(("seconds", "words"), [(5, "5 s"), (65, "1 min 5 s"), (7_500, "2 h 5 min"), (None, "?")])
def test_durations(seconds, words):
    assert progress._duration(seconds) == words
