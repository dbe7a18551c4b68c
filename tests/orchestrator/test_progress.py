"""What people see: plain lines where nobody watches, a table where somebody does."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import threading
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.commands.progress import Lines, waiting
from orchestrator.engine import progress
from orchestrator.engine.progress import ProgressDisplay
from orchestrator.jobs.job import Job, Resources


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
            parents=(),
            spec={},
            resources=Resources(),
            title=f"attack number {at}",
            group=("attack",),
        )
        for at in range(count)
    }
    sink = io.StringIO()
    console = Console(file=sink, force_terminal=terminal, width=100)
    return ProgressDisplay(jobs, dict.fromkeys(jobs, 10.0), console), sink


def test_plain_lines_count_and_estimate_from_what_jobs_really_took(clock):
    shown, sink = view()
    with shown:
        assert shown.time_left.seconds is None
        for at in range(2):
            shown.started(f"k{at}")
            clock.now += 20  # twice the estimate
            shown.finished(f"k{at}")
        # Two jobs of 10 estimated seconds are left, each taking twice that, on one slot.
        assert shown.time_left.seconds == pytest.approx(40)
    assert "2/4 jobs (attack 2/4) in 40 s, about 40 s left" in sink.getvalue()
    assert "\x1b[" not in sink.getvalue()


def test_no_trial_runs_after_the_last_was_lost(clock):
    shown, _ = view()
    with shown:
        shown.started("k0")
        assert [trial["job"] for trial in shown.trials()] == ["k0"]
    assert shown.trials() == []


def test_a_job_that_another_sweep_left_runs_here_and_not_there(clock):
    shown, _ = view()
    for key in ("k0", "k1"):
        shown.elsewhere(key)
    shown.started("k0")
    assert shown.away == {"k1"}


def test_two_slots_halve_what_is_left(clock):
    shown, _ = view(count=6)
    for pair in (("k0", "k1"), ("k2", "k3")):
        for key in pair:
            shown.started(key)
        clock.now += 10
        for key in pair:
            shown.finished(key)
    assert shown.time_left.seconds == pytest.approx(10)


def test_failures_are_said_at_once(clock):
    shown, sink = view()
    shown.started("k0")
    shown.failed("k0", "ValueError: no", retried=True)
    shown.failed("k0", "ValueError: no", retried=False)
    text = sink.getvalue()
    assert "failed, will be tried again: attack number 0: ValueError: no" in text
    assert "failed for good: attack number 0: ValueError: no" in text


def test_what_trials_have_to_tell_is_said_once(clock):
    shown, sink = view()
    for key in ("k0", "k1"):
        shown.said(key, "data set 'digits': [begun] before fingerprints")
    assert sink.getvalue() == "note: data set 'digits': [begun] before fingerprints\n"


def test_a_terminal_shows_the_running_trials():
    shown, sink = view(terminal=True)
    with shown:
        shown.started("k2")
        shown._live.refresh()
    assert "attack number 2" in sink.getvalue()
    assert "0 of 4" in sink.getvalue()


@pytest.mark.parametrize(("seconds", "words"), [(5, "5 s"), (65, "1 min 5 s"), (7_500, "2 h 5 min")])
def test_durations(seconds, words):
    assert progress.duration(seconds) == words


@pytest.mark.parametrize("retried", [True, False])
@pytest.mark.parametrize(
    "error", ["ValueError: expected float[n, channels]", "KeyError: '[/red]'", "no [bold]markup[/bold] here", "C:\\["]
)
def test_errors_are_printed_as_they_are(clock, error, retried):
    shown, sink = view()
    shown.started("k0")
    shown.failed("k0", error, retried=retried)
    assert f"attack number 0: {error}" in sink.getvalue()


@pytest.mark.parametrize("pace", [0.5, 1, 3])
def test_the_time_left_follows_the_measured_rate(clock, pace):
    shown, _ = view(count=10)
    for at in range(4):
        shown.started(f"k{at}")
        clock.now += 10 * pace
        shown.finished(f"k{at}")
        # The first job paid for the start of its worker.
        assert shown.time_left.seconds == (pytest.approx((9 - at) * 10 * pace) if at else None)


def test_nothing_is_left_at_the_end(clock):
    shown, sink = view(count=2)
    with shown:
        for at in range(2):
            shown.started(f"k{at}")
            clock.now += 7
            shown.finished(f"k{at}")
        assert shown.time_left.seconds == 0
    assert "2/2 jobs (attack 2/2) in 14 s\n" in sink.getvalue()


def test_a_job_that_is_tried_again_is_still_to_be_done(clock):
    shown, _ = view(count=4)
    for key in ("k0", "k1"):
        shown.started(key)
        clock.now += 10
        shown.finished(key)
    shown.started("k2")
    shown.failed("k2", "no", retried=True)
    assert shown.time_left.seconds == pytest.approx(20)
    shown.started("k2")
    shown.failed("k2", "no", retried=False)
    assert shown.time_left.seconds == pytest.approx(10)


def test_the_start_of_a_worker_is_no_measurement(clock):
    shown, sink = view()
    with shown:
        shown.started("k0")
        clock.now += 300
        shown.finished("k0")
        assert shown.time_left.seconds is None
        assert "1/4 jobs (attack 1/4) in 300 s, no estimate of the time left yet" in sink.getvalue()
        shown.started("k1")
        clock.now += 5
        shown.finished("k1")
        assert shown.time_left.seconds == pytest.approx(10)


def test_there_is_no_estimate_until_most_of_what_is_left_was_measured(clock):
    shown, _ = view(count=6)
    long = {key: dataclasses.replace(shown.jobs[key], group=("long",)) for key in ("k4", "k5")}
    shown = ProgressDisplay(shown.jobs | long, shown.seconds | {"k4": 60.0, "k5": 60.0}, shown.console)
    for at in range(3):
        shown.started(f"k{at}")
        clock.now += 20
        shown.finished(f"k{at}")
    # One short job is left that was measured, and two long ones that were not.
    assert shown.time_left.seconds is None
    shown.started("k4")
    clock.now += 90
    shown.finished("k4")
    assert shown.time_left.seconds == pytest.approx(20 + 90)


#: Jobs of real sweeps on two slots of a busy machine: what each was, and the seconds after the sweep's start at which
#: it began and ended.
RECORDED = json.loads(Path(__file__).with_name("recorded_sweeps.json").read_text())


@pytest.mark.parametrize("record", RECORDED, ids=["quickstart", "three seeds", "audit"])
def test_no_estimate_of_a_recorded_sweep_was_far_off(clock, record):
    shown, _ = view(count=len(record))
    named = zip(shown.jobs.items(), record, strict=True)
    jobs = {key: dataclasses.replace(job, group=(what,)) for (key, job), (what, *_) in named}
    shown = ProgressDisplay(jobs, dict.fromkeys(jobs, 3.0), shown.console)
    # What ends in the same moment as another begins makes room for it.
    moments = [(began, True, key) for key, (_, began, _) in zip(jobs, record, strict=True)]
    moments += [(ended, False, key) for key, (_, _, ended) in zip(jobs, record, strict=True)]
    end, estimates = max(moments)[0], 0
    for now, begins, key in sorted(moments):
        clock.now = now
        (shown.started if begins else shown.finished)(key)
        if not begins and shown.time_left.seconds is not None and end - now > 60:
            estimates += 1
            assert 1 / 2 < shown.time_left.seconds / (end - now) < 2, (
                f"{shown.time_left.seconds:.0f} s at {now:.0f} s of {end:.0f} s"
            )
    assert estimates > 5


def test_plain_lines_come_every_few_seconds_and_not_for_every_job(clock):
    shown, sink = view(count=100)
    with shown:
        for at in range(100):
            shown.started(f"k{at}")
            clock.now += 0.5
            shown.finished(f"k{at}")
    lines = [line for line in sink.getvalue().splitlines() if "jobs" in line]
    assert len(lines) <= 50 / progress.QUIET + 2
    assert "100/100 jobs" in lines[-1]


def test_a_terminal_shows_the_count_the_failures_and_the_time_left(clock):
    shown, sink = view(terminal=True)
    with shown:
        shown.started("k0")
        clock.now += 30
        shown.finished("k0")
        shown.started("k1")
        shown.failed("k1", "ValueError: no", retried=False)
        shown.started("k2")
        clock.now += 4
        shown._live.refresh()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sink.getvalue())
    assert "1 of 4" in text
    assert re.search(r"attack number 2 +4\s", text)
    assert "failed for good: attack number 1: ValueError: no" in text
    assert "34 s passed, time left: no estimate yet, 1 failed" in text


def test_a_terminal_says_so_while_no_time_is_known(clock):
    shown, sink = view(terminal=True)
    with shown:
        shown._live.refresh()
    assert "time left: no estimate yet" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sink.getvalue())


def test_of_many_running_trials_twelve_are_shown_and_the_rest_counted(clock):
    shown, sink = view(count=20, terminal=True)
    with shown:
        for at in range(15):
            shown.started(f"k{at}")
        shown._live.refresh()
    assert "attack number 11" in sink.getvalue()
    assert "attack number 12" not in sink.getvalue()
    assert "... and 3 more" in sink.getvalue()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_failed_pre_training_and_what_waits_for_it_is_neither_done_nor_left(clock, elsewhere):
    shown, sink = view(count=6)
    jobs = {
        key: dataclasses.replace(job, parents={"k1": ("k0",), "k2": ("k1",), "k3": ("k1",)}.get(key, ()))
        for key, job in shown.jobs.items()
    }
    shown = ProgressDisplay(jobs, dict.fromkeys(jobs, 10.0), shown.console)
    with shown:
        if elsewhere:
            shown.elsewhere("k0")
            shown.settled("k0", done=False)
        else:
            shown.started("k0")
            shown.failed("k0", "ValueError: no", retried=False)
        for key in ("k4", "k5"):
            shown.started(key)
            clock.now += 10
            shown.finished(key)
        assert shown.time_left.seconds == 0
    assert sink.getvalue().splitlines()[-1] == "2/6 jobs (attack 2/6), 1 failed, 3 blocked in 20 s"


def test_a_sweep_without_jobs_shows_nothing_and_does_not_fail(clock):
    shown, sink = view(count=0)
    with shown:
        assert shown.time_left.seconds is None
    assert "0/0 jobs" in sink.getvalue()


def test_kinds_are_counted_apart(clock):
    shown, sink = view(count=2)
    jobs = {
        key: dataclasses.replace(job, kind="finetune" if key == "k0" else "attack") for key, job in shown.jobs.items()
    }
    shown = ProgressDisplay(jobs, shown.seconds, shown.console)
    with shown:
        shown.started("k0")
        clock.now += 1
        shown.finished("k0")
    assert "1/2 jobs (finetune 1/1, attack 0/1)" in sink.getvalue()


def test_long_work_prints_a_line_now_and_then_with_the_time_left(clock):
    sink = io.StringIO()
    lines = Lines(Console(file=sink, width=200))
    for at, what, done, total in ((4, "files read", 1, 30), (8, "files read", 2, 30), (12, "files read", 3, 30)):
        clock.now = at
        lines(what, done, total)
    # A stage is timed by what was done since it was first told of: other work came before.
    for at, done in ((600, 1), (605, 2), (612, 3), (613, 4)):
        clock.now = at
        lines("cells written", done, 5)
    assert sink.getvalue().splitlines() == [
        "3 of 30 files read, about 1 min 48 s left",
        "1 of 5 cells written",
        "3 of 5 cells written, about 12 s left",
    ]


def test_what_cannot_say_how_far_it_is_says_how_long_it_takes(monkeypatch):
    sink, told = io.StringIO(), threading.Event()
    console = Console(file=sink, width=200)
    print_line = console.print
    monkeypatch.setattr(console, "print", lambda words: (print_line(words), told.set()))
    with waiting(console, "planning"):
        pass
    assert sink.getvalue() == ""
    monkeypatch.setattr("orchestrator.commands.progress.PERIOD", 0.01)

    def interrupted():
        with waiting(console, "planning"):
            assert told.wait(60)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert set(sink.getvalue().splitlines()) == {"planning: 0 s so far"}
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("(tell)")]
