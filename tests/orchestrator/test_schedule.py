"""What the search algorithm that feeds Ray Tune makes of results, failures and a cluster that is gone."""

from __future__ import annotations

import io

import pytest
from ray.tune.search import Searcher
from rich.console import Console

from orchestrator import schedule
from orchestrator.cells import Resources
from orchestrator.frontier import Frontier, Retries
from orchestrator.plan import Job
from orchestrator.progress import View
from orchestrator.work import Context

CONTEXT = Context(storage="", data_root="", git="", versions="")


def job(key, parent=None):
    resources = Resources(gpu=0.5, cpu=2)
    return Job(key=key, kind="attack", parent=parent, spec={"a": 1}, resources=resources, title=key, group=("attack",))


@pytest.fixture
def feed(monkeypatch):
    monkeypatch.setattr(schedule.ray, "nodes", lambda: [{"Alive": True}])
    jobs = {"parent": job("parent"), "child": job("child", "parent")}
    seconds = dict.fromkeys(jobs, 1.0)
    blamed = []
    view = View(jobs, seconds, Console(file=io.StringIO()))
    made = schedule._Feed(Frontier(jobs, seconds, Retries(attempts=2, backoff=0)), view, CONTEXT, blamed.append)
    made.blamed = blamed
    return made


def test_a_trial_gets_its_job_and_its_share(feed):
    config = feed.suggest("t1")
    assert config == {"key": "parent", "spec": {"a": 1}, "context": CONTEXT, "gpu": 0.5, "cpu": 2}
    placement = schedule._placement(config)
    assert placement.bundles == [{"CPU": 2.0, "GPU": 0.5}]


def test_children_wait_and_the_end_is_said(feed):
    feed.suggest("t1")
    assert feed.suggest("t2") is None
    feed.on_trial_complete("t1", {"done": True})
    assert feed.suggest("t2")["key"] == "child"
    feed.on_trial_complete("t2", {"done": True})
    assert feed.suggest("t3") == Searcher.FINISHED


def test_an_exception_is_retried_and_then_recorded_with_its_traceback(feed):
    result = {"done": True, "error": "ValueError: no", "traceback": "Traceback ...", "host": "here"}
    for trial in ("t1", "t2"):
        assert feed.suggest(trial)["key"] == "parent"
        feed.on_trial_complete(trial, result)
    (failure,) = feed.blamed
    assert (failure.error, failure.traceback, failure.attempts) == ("ValueError: no", "Traceback ...", 2)
    assert feed.suggest("t3") == Searcher.FINISHED
    assert feed.frontier.state["child"] == "blocked"


def test_a_dead_worker_is_a_failure_but_a_dead_cluster_is_nobodys(feed, monkeypatch):
    feed.suggest("t1")
    feed.on_trial_complete("t1", None, error=True)
    assert feed.frontier.attempts["parent"] == 1
    feed.suggest("t2")
    monkeypatch.setattr(schedule.ray, "nodes", lambda: [{"Alive": False}])
    feed.on_trial_complete("t2", None, error=True)
    assert feed.lost
    assert feed.blamed == []
    assert feed.suggest("t3") == Searcher.FINISHED


def test_a_job_that_raises_is_reported_by_its_trial_and_leaves_the_actor_alive():
    def fail(key, spec, context):
        raise ValueError("no such thing")

    trial = schedule.Trial.__new__(schedule.Trial)
    trial.setup({"key": "k", "spec": {}, "context": CONTEXT, "cpu": 1}, execute=fail)
    result = trial.step()
    assert result["error"] == "ValueError: no such thing"
    assert "fail" in result["traceback"]
    assert trial.reset_config({"key": "next", "spec": {}, "context": CONTEXT, "cpu": 1})
    assert trial.job["key"] == "next"
