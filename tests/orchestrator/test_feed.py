"""What the search algorithm that feeds Ray Tune makes of results, failures, other sweeps and a cluster that is gone."""

from __future__ import annotations

import json

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError
from ray.tune.search import Searcher

from orchestrator.engine import cluster, connection, schedule, shared_jobs
from orchestrator.engine.actors import EndedError
from orchestrator.engine.dispatch import Feed
from orchestrator.engine.frontier import Frontier
from orchestrator.engine.idle_workers import IdleWorkers
from orchestrator.engine.retries import Retries
from orchestrator.jobs.job import Job, Resources
from orchestrator.plan.packing import Packing
from orchestrator.store import Store
from orchestrator.store.claims import Claims

NODE = {"CPU": 4.0, "GPU": 1.0}
FAILED = {"done": True, "cause": "error", "error": "ValueError: no", "traceback": ""}


def job(key, *parents, **resources):
    given = Resources(**({"gpu": 0.5, "cpu": 2} | resources))
    return Job(key=key, kind="attack", parents=parents, spec={"a": 1}, resources=given, title=key, group=("attack",))


class Log:
    """A watcher that keeps what it was told."""

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        return lambda *values: self.told.append((name, *values))


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes a feed of jobs, without a cluster."""
    monkeypatch.setattr(cluster, "nodes", lambda: [dict(NODE)])
    monkeypatch.setattr(connection, "alive", lambda: True)
    monkeypatch.setattr(cluster, "hosts", lambda: {"10.0.0.2": "far"})

    def make(*jobs, retries=None, measured=None):
        table = {j.key: j for j in jobs}
        store = Store(str(tmp_path))
        frontier = Frontier(table, dict.fromkeys(table, 1.0), retries or Retries(attempts=2, backoff=0))
        claims = Claims(store, list)
        blamed, log = [], Log()
        feed = Feed(frontier, Packing(measured or {}, gpus=True), claims, store, (log,), blamed.append)
        feed.blamed, feed.log = blamed, log
        return feed

    return make


@pytest.fixture
def feed(made):
    return made(job("parent"), job("child", "parent"))


def test_a_trial_gets_its_job_and_its_share(feed):
    config = feed.suggest("t1")
    assert config["key"] == "parent"
    assert config["spec"] == {"a": 1}
    assert (config["gpu"], config["cpu"], config["halvings"], config["minutes"]) == (0.5, 2, 0, 1440)
    assert schedule._placement(config).bundles == [{"CPU": 2.0, "GPU": 0.5}]
    kind = schedule._placement(config | {"accelerator_type": "H200"})
    assert kind.bundles == [{"CPU": 2.0, "GPU": 0.5, "accelerator_type:H200": 0.001}]


@pytest.mark.parametrize("warm_up", [{"done": True}, {"done": True, "error": "CUDA error"}, None])
def test_children_wait_while_a_worker_starts_and_the_end_is_said(feed, warm_up):
    feed.suggest("t1")
    feed.on_trial_start("t1", 0.5)
    # The machine has room for two: one runs the parent, the other starts for the child.
    warming = feed.suggest("t2")
    assert warming["key"] is None
    assert (warming["gpu"], warming["cpu"], warming["minutes"]) == (0.5, 2, 1440)
    assert feed.suggest("t3") is None
    feed.on_trial_start("t2", 0.5)
    feed.on_trial_complete("t2", warm_up, error=warm_up is None)
    assert feed.suggest("t3") is None
    assert [told[:2] for told in feed.log.told] == [("started", "parent")]
    feed.on_trial_complete("t1", {"done": True})
    assert feed.suggest("t3")["key"] == "child"
    assert feed.keeps_workers
    feed.on_trial_start("t3", 0.5)
    assert not feed.keeps_workers
    feed.on_trial_complete("t3", {"done": True})
    assert feed.suggest("t4") == Searcher.FINISHED
    assert feed.blamed == []


def test_workers_that_have_started_fill_the_room_until_a_job_ends(made):
    feed = made(job("parent", cpu=1, gpu=0.25), *(job(f"c{at}", "parent", cpu=1, gpu=0.25) for at in range(9)))
    feed.suggest("t0")
    feed.on_trial_start("t0", 0.25)
    for trial in ("t1", "t2", "t3"):
        assert feed.suggest(trial)["key"] is None
        feed.on_trial_start(trial, 0.25)
        feed.on_trial_complete(trial, {"done": True})
    # Four fit: one runs the parent, three are idle.
    assert feed.suggest("t4") is None
    feed.on_trial_complete("t0", {"done": True})
    assert [feed.suggest(f"t{at}")["key"] for at in range(5, 9)] == ["c0", "c1", "c2", "c3"]
    assert feed.suggest("t9") is None


def test_no_worker_starts_once_there_are_idle_ones(made):
    feed = made(job("parent"), job("child", "parent"), retries=Retries(attempts=2, backoff=1e6))
    feed.suggest("t1")
    feed.on_trial_start("t1", 0.5)
    feed.on_trial_complete("t1", FAILED)
    # It waits for its second attempt, beside its worker.
    assert feed.frontier.counts["waiting"] == 2
    assert feed.suggest("t2") is None


def test_on_a_cluster_no_worker_waits_for_a_job(feed, monkeypatch):
    monkeypatch.setattr(cluster, "request", lambda bundles: None)
    feed.room.autoscaled = True
    feed.suggest("t1")
    assert feed.suggest("t2") is None


def idle(keeps):
    return IdleWorkers(lambda: keeps)


def test_idle_workers_stay_for_jobs_that_wait_until_a_trial_needs_others():
    workers = idle(True)
    assert all(workers.cache_object("small", name) for name in "abc")
    assert list(workers.flush_cached_objects()) == []
    workers.increase_max("small")
    assert list(workers.flush_cached_objects()) == []
    assert workers.cache_object("small", "d")
    assert workers.pop_cached_object("small") == "a"
    workers.decrease_max("small")
    workers.increase_max("large")
    assert not workers.cache_object("small", "e")
    assert sorted(workers.flush_cached_objects()) == ["b", "c", "d"]
    assert workers.cache_object("large", "f")
    assert list(workers.flush_cached_objects(force_all=True)) == ["f"]


def test_without_waiting_jobs_idle_workers_are_kept_as_tune_keeps_them():
    workers = idle(False)
    assert workers.cache_object("small", "a")
    assert not workers.cache_object("small", "b")


@pytest.mark.parametrize("outcome", [{}, FAILED])
def test_what_a_trial_has_to_tell_is_passed_on_however_its_job_ended(feed, outcome):
    feed.suggest("t1")
    feed.on_trial_complete("t1", {"done": True, "said": ["a cache was mended", "b"]} | outcome)
    assert [told for told in feed.log.told if told[0] == "said"] == [
        ("said", "parent", "a cache was mended"),
        ("said", "parent", "b"),
    ]


def test_no_more_trials_than_fit(made):
    feed = made(*(job(f"j{at}") for at in range(5)))
    assert [feed.suggest(f"t{at}") is not None for at in range(4)] == [True, True, False, False]
    feed.on_trial_complete("t0", {"done": True})
    assert feed.suggest("t4") is not None
    assert feed.suggest("t5") is None


def test_an_exception_is_retried_and_then_recorded_with_its_traceback(feed):
    told = {"done": True, "cause": "error", "error": "ValueError: no", "traceback": "Traceback ...", "host": "here"}
    for trial in ("t1", "t2"):
        assert feed.suggest(trial)["key"] == "parent"
        feed.on_trial_complete(trial, told)
    (failure,) = feed.blamed
    assert (failure["error"], failure["traceback"], failure["attempt"]) == ("ValueError: no", "Traceback ...", 2)
    assert feed.suggest("t3") == Searcher.FINISHED
    assert feed.frontier.state["child"] == "blocked"


@pytest.mark.parametrize(
    ("machines", "autoscaled", "tries"), [(1, False, 1), (2, False, 2), (5, False, 2), (1, True, 2)]
)
def test_what_a_machine_lacks_is_tried_again_only_where_there_is_another(
    made, monkeypatch, machines, autoscaled, tries
):
    monkeypatch.setattr(cluster, "nodes", lambda: [dict(NODE)] * machines)
    feed = made(job("parent"), job("child", "parent"), retries=Retries(backoff=0))
    feed.room.autoscaled = autoscaled
    monkeypatch.setattr(cluster, "request", lambda bundles: None)
    told = {"done": True, "cause": "lasting", "error": "DataNotFoundError: no", "traceback": "", "host": "here"}
    for number in range(tries):
        assert feed.suggest(f"t{number}")["key"] == "parent"
        feed.on_trial_complete(f"t{number}", told)
    (failure,) = feed.blamed
    assert failure["attempt"] == tries
    assert feed.suggest("t9") == Searcher.FINISHED


def test_a_dead_worker_is_a_failure_but_a_dead_cluster_is_nobodys(feed, monkeypatch):
    feed.suggest("t1")
    feed.on_trial_complete("t1", None, error=True)
    assert feed.frontier.failures["parent"] == {"death": 1}
    feed.suggest("t2")
    monkeypatch.setattr(connection, "alive", lambda: False)
    feed.on_trial_complete("t2", None, error=True)
    assert feed.lost
    assert feed.blamed == []
    assert feed.suggest("t3") == Searcher.FINISHED


@pytest.mark.parametrize(
    ("death", "cause"),
    [
        (ActorDiedError(), "death"),
        (ActorUnavailableError("RpcError", None), "node"),
        (EndedError(OutOfMemoryError("Memory on the node was 9.00GB used / 10.00GB limit")), "host memory"),
    ],
)
def test_the_cause_of_a_death_decides_about_its_retry(feed, death, cause):
    feed.suggest("t1")
    feed.on_trial_death("t1", death)
    feed.on_trial_complete("t1", None, error=True)
    assert feed.frontier.failures["parent"] == {cause: 1}


def test_a_worker_that_died_after_its_job_was_committed_costs_nothing(feed, tmp_path):
    feed.suggest("t1")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/parent.parquet").write_bytes(b"")
    feed.on_trial_death("t1", ActorDiedError())
    feed.on_trial_complete("t1", None, error=True)
    assert feed.frontier.state["parent"] == "done"
    (told,) = [values for name, key, *values in feed.log.told if (name, key) == ("finished", "parent")]
    assert "was killed by a signal or crashed" in told[0]["death"]


def test_a_worker_that_ends_itself_says_why_before(feed):
    feed.suggest("t1")
    feed.on_trial_result("t1", {"done": False, "cause": "time", "error": "TimeoutError: long", "traceback": "t"})
    feed.on_trial_complete("t1", None, error=True)
    assert feed.frontier.failures["parent"] == {"time": 1}


def test_out_of_memory_gets_a_larger_share_and_half_the_micro_batch(made):
    feed = made(job("a", gpu="auto"), measured={("attack",): (2 * 2**30, 80 * 2**30)})
    shares = []
    for attempt in range(7):
        config = feed.suggest(f"t{attempt}")
        shares.append(config["gpu"])
        assert config["halvings"] == attempt
        told = {"done": True, "cause": "memory", "error": "OutOfMemoryError", "traceback": ""}
        feed.on_trial_complete(f"t{attempt}", told)
    assert shares == [0.25, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_a_peak_that_was_measured_packs_the_next_jobs_of_its_kind(made):
    feed = made(job("a", gpu="auto"), job("b", gpu="auto"), job("c", gpu="auto"))
    assert feed.suggest("t1")["gpu"] == 1.0
    assert feed.suggest("t2") is None
    feed.on_trial_complete("t1", {"done": True, "gpu_peak": 20 * 2**30, "gpu_total": 80 * 2**30})
    # 20 GiB and a margin of 30 % are 27 GiB of 80.
    assert feed.suggest("t2")["gpu"] == 0.5
    assert feed.suggest("t3")["gpu"] == 0.5


def test_a_job_whose_results_are_in_the_store_is_done_whatever_its_trial_says(made, tmp_path):
    feed = made(job("a"), job("b", "a"), retries=Retries(attempts=1))
    feed.suggest("t1")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/a.parquet").write_bytes(b"")
    feed.on_trial_complete("t1", {"done": True, "cause": "error", "error": "OSError: x", "traceback": ""})
    assert feed.frontier.state == {"a": "done", "b": "ready"}
    assert feed.blamed == []


def test_a_failure_is_recorded_before_its_claim_is_dropped(made):
    feed = made(job("a"), retries=Retries(attempts=1))
    held = []
    feed.on_failure = lambda failure: held.append(feed.jobs.claims.holds(failure["job"]))
    feed.suggest("t1")
    feed.on_trial_complete("t1", FAILED)
    assert held == [True]
    assert not feed.jobs.claims.holds("a")


def test_a_failure_that_cannot_be_recorded_stops_the_sweep(made):
    feed = made(job("a"), job("b"), retries=Retries(attempts=1))

    def refuse(failure):
        raise OSError("no route to the bucket")

    feed.on_failure = refuse
    feed.suggest("t1")
    feed.on_trial_complete("t1", FAILED)
    assert feed.store_error == "OSError: no route to the bucket"
    assert feed.suggest("t2") == Searcher.FINISHED


def test_a_store_that_is_silent_for_a_while_is_waited_for_and_one_that_stays_silent_stops_the_sweep(made, monkeypatch):
    feed = made(job("a"), job("b"))
    assert feed.suggest("t0")["key"] == "a"
    take, calls = feed.jobs.claims.take, []

    def silent(keys):
        calls.append(keys)
        raise OSError("timed out")

    monkeypatch.setattr(feed.jobs.claims, "take", silent)
    feed.jobs.claims.drop("b")
    assert feed.suggest("t1") is None
    # It is left alone for some seconds, which a running trial does not notice.
    assert feed.suggest("t1") is None
    assert len(calls) == 1
    assert (feed.frontier.state["b"], feed.frontier.left, feed.store_error) == ("ready", 1.0, None)
    monkeypatch.setattr(shared_jobs, "LOOK", 0)
    monkeypatch.setattr(feed.jobs.claims, "take", take)
    assert feed.suggest("t1")["key"] == "b"
    monkeypatch.setattr(feed.jobs.claims, "take", silent)
    feed.on_trial_complete("t0", {"done": True})
    feed.frontier.released("b")
    feed.jobs.claims.drop("b")
    assert feed.suggest("t2") is None
    monkeypatch.setattr(shared_jobs, "PATIENCE", -1)
    assert feed.suggest("t2") == Searcher.FINISHED
    assert feed.store_error == "OSError: timed out"


def test_a_trial_that_was_not_ended_beside_a_fault_can_be_the_next_to_fault(made):
    feed = made(job("a"), job("b"), job("c"), retries=Retries(attempts=1))
    feed.shares_gpus = True
    assert [feed.suggest(trial)["key"] for trial in ("t1", "t2")] == ["a", "b"]
    fault = FAILED | {"done": False, "error": "RuntimeError: CUDA error: device-side assert triggered"}
    for trial in ("t1", "t2"):
        # The worker of the second has not started when the first faults, so it is not ended.
        feed.on_trial_result(trial, fault)
        assert feed.faulted(trial)
        feed.on_trial_complete(trial, None, error=True)
    assert feed.suggest("t3")["key"] == "c"
    feed.on_fault_beside("t3")
    feed.on_trial_result("t3", fault)
    assert not feed.faulted("t3")
    feed.on_trial_complete("t3", None, error=True)
    assert (feed.frontier.state["c"], feed.frontier.failures["c"]) == ("waiting", {"node": 1})
    assert [failure["job"] for failure in feed.blamed] == ["a", "b"]


@pytest.mark.parametrize("cause", ["store", "disk"])
def test_a_store_that_cannot_be_written_stops_the_sweep_and_blames_no_job(made, cause):
    feed = made(job("a"), job("b"))
    told = {"done": True, "cause": cause, "error": "OSError: No space left on device", "traceback": "", "host": "far"}
    for at in range(2):
        key = feed.suggest(f"t{at}")["key"]
        feed.on_trial_complete(f"t{at}", told)
    assert key == "a"
    assert feed.store_error == "OSError: No space left on device (on far)"
    assert feed.blamed == []
    assert feed.suggest("t3") == Searcher.FINISHED


def test_a_job_that_another_sweep_has_claimed_is_left_to_it_and_taken_when_it_dies(made, tmp_path, monkeypatch):
    feed = made(job("a"), job("b"))
    other = Claims(Store(str(tmp_path)), list)
    other.take(["a"])
    assert feed.suggest("t1")["key"] == "b"
    assert feed.suggest("t2") is None
    assert feed.frontier.state["a"] == "elsewhere"
    assert ("elsewhere", "a") in feed.log.told
    feed.jobs.store.remove(other.path)
    feed.jobs._looked = float("-inf")
    assert feed.suggest("t3")["key"] == "a"


def test_what_another_sweep_finished_meanwhile_is_not_done_again(made, tmp_path):
    feed = made(job("a"), job("b", "a"), job("c"))
    (tmp_path / "results").mkdir()
    (tmp_path / "results/a.parquet").write_bytes(b"")
    (tmp_path / "failures").mkdir()
    for key in "ac":
        (tmp_path / f"failures/{key}.parquet").write_bytes(b"")
    assert feed.suggest("t1")["key"] == "b"
    assert feed.frontier.state == {"a": "done", "b": "running", "c": "failed"}
    assert sorted(told for told in feed.log.told if told[0] == "settled") == [
        ("settled", "a", True),
        ("settled", "c", False),
    ]


def test_what_is_not_on_any_node_yet_is_still_asked_for(made, monkeypatch):
    asked = []
    monkeypatch.setattr(cluster, "request", asked.append)
    feed = made(job("a", gpu=1), job("b", gpu=1, accelerator_type="H200"), job("c", "a"))
    feed.room.autoscaled = True
    with feed:
        feed.suggest("t1")
        # What waits for another job needs no room yet.
        assert asked == [[{"CPU": 2, "GPU": 1}, {"CPU": 2, "GPU": 1, "accelerator_type:H200": 0.001}]]
    assert asked[-1] == []


def test_nodes_that_join_get_trials_while_the_first_still_waits(made, monkeypatch):
    feed = made(*(job(f"j{at}", gpu=1, cpu=1) for at in range(6)))
    monkeypatch.setattr(cluster, "nodes", lambda: [{"CPU": 4.0}])
    assert feed.suggest("t0") is not None
    assert feed.suggest("t1") is None
    monkeypatch.setattr(cluster, "nodes", lambda: [{"CPU": 4.0}, dict(NODE), dict(NODE), dict(NODE)])
    feed.room._looked = float("-inf")
    assert [feed.suggest(f"t{at}") is not None for at in range(1, 5)] == [True, True, False, False]


@pytest.mark.parametrize("nodes", [[{"Alive": False, "Resources": {"CPU": 4.0}}], None])
def test_a_ray_that_died_before_the_first_job_is_lost_and_no_wrong_request(monkeypatch, nodes):
    def answer():
        if nodes is None:
            raise RuntimeError("failed to connect\nto GCS")
        return nodes

    monkeypatch.setattr(cluster.ray, "nodes", answer)
    with pytest.raises(connection.ClusterLostError, match=r"no node of Ray is alive|Ray does not answer: fail"):
        cluster.check_fits([Resources()])


def test_long_jobs_are_claimed_one_by_one_and_short_ones_some_at_a_time(made):
    for seconds, claimed in ((60.0, 1), (0.1, 12)):
        feed = made(*(job(f"{seconds}-{at}", gpu=0, cpu=4) for at in range(12)))
        feed.frontier.estimates.update(dict.fromkeys(feed.frontier.jobs, seconds))
        feed.suggest("t1")
        assert len(feed.jobs.claims.held) == claimed


def test_claims_are_in_the_store_while_a_job_runs_and_gone_after(feed, tmp_path):
    feed.suggest("t1")
    assert json.loads((tmp_path / feed.jobs.claims.path).read_text())["claims"] == ["parent"]
    feed.on_trial_complete("t1", {"done": True})
    assert feed.jobs.claims.held == set()


def test_a_sweep_that_was_told_to_stop_starts_nothing_though_the_exception_was_swallowed(feed):
    feed.suggest("t1")
    feed.stopped = lambda: True
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            feed.suggest("t2")
    with pytest.raises(KeyboardInterrupt):
        feed.on_trial_complete("t1", {"done": True})
    assert feed.frontier.state["parent"] == "done"
