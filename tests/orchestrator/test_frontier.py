"""The frontier is pure: events in, decisions out, no clock and no cluster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.frontier import Frontier
from orchestrator.engine.retries import Retries
from orchestrator.jobs.job import Job, Resources


def job(key, *parents, kind="attack"):
    return Job(key=key, kind=kind, parents=parents, spec={}, resources=Resources(), title=key, group=(kind,))


def frontier(*jobs, seconds=None, retries=None):
    table = {j.key: j for j in jobs}
    return Frontier(table, {key: (seconds or {}).get(key, 1.0) for key in table}, retries or Retries())


def test_children_wait_for_their_parent():
    f = frontier(job("a"), job("b", "a"), job("c", "b"))
    assert f.next(0, 1).key == "a"
    assert f.next(0, 1) is None
    f.finished("a")
    assert f.next(0, 1).key == "b"
    f.finished("b")
    assert f.next(0, 1).key == "c"
    f.finished("c")
    assert f.exhausted


def test_a_parent_that_is_not_in_the_plan_is_done_already():
    assert frontier(job("b", "done-earlier")).next(0, 1).key == "b"


def test_the_longest_chain_comes_first_and_equals_keep_the_plans_order():
    f = frontier(job("x"), job("y"), job("a"), job("a1", "a"), seconds={"x": 2, "y": 2, "a": 1, "a1": 5})
    assert [f.next(0, 1).key for _ in range(3)] == ["a", "x", "y"]


def test_a_failure_is_retried_after_a_backoff_that_doubles():
    f = frontier(job("a"), retries=Retries(attempts=3, backoff=2))
    assert f.next(0, 1).key == "a"
    assert f.failed("a", now=10)
    assert f.next(11.9, 1) is None
    assert not f.exhausted
    assert f.next(12, 1).key == "a"
    assert f.failed("a", now=20)
    assert f.next(23.9, 1) is None
    assert f.next(24, 1).key == "a"
    assert not f.failed("a", now=30)
    assert f.exhausted


def test_a_failure_for_good_blocks_its_descendants_and_nothing_else():
    jobs = [job("a"), job("b", "a"), job("c", "b"), job("x"), job("y", "x")]
    f = frontier(*jobs, retries=Retries(attempts=1))
    assert {f.next(0, 1).key, f.next(0, 1).key} == {"a", "x"}
    assert not f.failed("a", now=0)
    assert {key: f.state[key] for key in ("a", "b", "c")} == {"a": "failed", "b": "blocked", "c": "blocked"}
    f.finished("x")
    assert f.next(0, 1).key == "y"
    f.finished("y")
    assert f.exhausted
    assert dict(+f.counts) == {"done": 2, "failed": 1, "blocked": 2}


@pytest.mark.slow
@given(data=st.data())
def test_any_history_ends_with_every_job_settled_and_none_before_its_parent(data):
    count = data.draw(st.integers(1, 20))
    parents = [data.draw(st.lists(st.integers(0, at - 1), max_size=3)) if at else [] for at in range(count)]
    jobs = [job(str(at), *map(str, needed)) for at, needed in enumerate(parents)]
    f = frontier(*jobs, retries=Retries(attempts=2))
    now, running, done = 0.0, [], set()
    for _ in range(10 * count + 20):
        now += 10
        started = f.next(now, 1)
        if started is not None:
            assert done.issuperset(started.parents)
            running.append(started.key)
        if running and (started is None or data.draw(st.booleans())):
            key = running.pop(data.draw(st.integers(0, len(running) - 1)))
            if data.draw(st.booleans()):
                f.finished(key)
                done.add(key)
            else:
                f.failed(key, now)
        if f.exhausted:
            break
    assert f.exhausted
    assert sum(f.counts.values()) == count
    for each in jobs:
        if f.state[each.key] == "blocked":
            assert {f.state[parent] for parent in each.parents} & {"failed", "blocked"}
        else:
            assert not {f.state[parent] for parent in each.parents} & {"failed", "blocked"}
    assert f.left == pytest.approx(0)


def test_attacks_on_ready_models_come_before_more_models_while_there_is_much_to_do():
    jobs = [job("f1"), job("f2"), job("f3")]
    jobs += [job(f"{parent}a{at}", parent) for parent in ("f1", "f2", "f3") for at in range(10)]
    f = frontier(*jobs, seconds=dict.fromkeys(("f1", "f2", "f3"), 4.0))
    assert {f.next(0, 2).key, f.next(0, 2).key} == {"f1", "f2"}
    f.finished("f1")
    assert [f.next(0, 2).key for _ in range(3)] == ["f1a0", "f1a1", "f1a2"]
    f.finished("f2")
    assert f.next(0, 2).key == "f1a3"


def test_the_longest_chain_comes_first_when_it_decides_about_the_end():
    # 20 slots for 31 jobs: the sweep takes as long as the last fine-tune and its attacks.
    jobs = [job("f1"), job("f2")] + [job(f"{parent}a{at}", parent) for parent in ("f1", "f2") for at in range(10)]
    f = frontier(*jobs, seconds={"f1": 4.0, "f2": 4.0})
    assert f.next(0, 20).key == "f1"
    f.finished("f1")
    assert f.next(0, 20).key == "f2"


def test_causes_are_counted_apart():
    f = frontier(job("a"), retries=Retries(attempts=2, deaths=3, backoff=0))
    for cause, again in (("death", True), ("node", True), ("memory", True), ("error", True), ("death", True)):
        assert f.next(0, 1).key == "a"
        assert f.failed("a", 0, cause) is again
    assert f.attempts("a") == 5
    assert f.halvings("a") == 1
    assert f.next(0, 1).key == "a"
    assert not f.failed("a", 0, "error")


def test_a_job_elsewhere_is_waited_for_and_its_children_with_it():
    f = frontier(job("a"), job("b", "a"), job("c"))
    assert f.next(0, 1).key == "a"
    f.elsewhere("a")
    assert f.next(0, 1).key == "c"
    f.finished("c")
    assert f.next(0, 1) is None
    assert not f.exhausted
    f.finished("a")
    assert f.next(0, 1).key == "b"
    f.elsewhere("b")
    f.released("b")
    assert f.next(0, 1).key == "b"
    f.finished("b")
    assert f.exhausted
    assert f.left == 0


def test_after_an_interruption_what_ran_is_ready_and_nobody_is_blamed():
    f = frontier(job("a"), job("b"))
    f.next(0, 2)
    f.next(0, 2)
    f.finished("a")
    f.interrupted()
    assert f.next(0, 2).key == "b"
    assert f.attempts("b") == 0
