"""Two sweeps on one store never hold the same job, and a dead one's claims expire."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest

from orchestrator.store import Store, StoreError
from orchestrator.store import claims as module
from orchestrator.store.claims import DEAD, OLD, Claims, alive


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the sweeps' clocks go ahead of the machine's."""

    class Clock:
        ahead = 0.0

    now, wall = module.time.monotonic, module.time.time
    monkeypatch.setattr(module.time, "monotonic", lambda: now() + Clock.ahead)
    monkeypatch.setattr(module.time, "time", lambda: wall() + Clock.ahead)
    return Clock


def stranger(store, **changes):
    """The sign of a sweep on another machine that claims the job "a"."""
    sign = {"host": "far", "pid": 1, "machine": "another", "born": "1", "at": module.time.time(), "beat": 1}
    sign |= {"claims": ["a"], "running": []} | changes
    store.write_json("sweeps/stranger.json", sign)


def test_the_second_sees_the_first(store):
    first, second = Claims(store, list), Claims(store, list)
    assert first.take(["a", "b"]) == {"a", "b"}
    assert second.take(["b", "c"]) == {"c"}
    assert second.claimed_elsewhere() == {"a", "b"}
    assert first.take(["c", "d"]) == {"d"}
    first.drop("a")
    first.take([])
    assert second.take(["a"]) == {"a"}


def test_many_at_once_never_hold_the_same(store):
    sweeps = [Claims(store, list) for _ in range(4)]
    keys = [f"k{at}" for at in range(6)]
    gate = threading.Barrier(len(sweeps))
    had = {}

    def grab(claims):
        gate.wait()
        had[claims.id] = [claims.take([key]) for key in keys]

    threads = [threading.Thread(target=grab, args=(claims,)) for claims in sweeps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [key for sweep in had.values() for keys in sweep for key in keys]
    assert len(taken) == len(set(taken))


def test_a_strangers_claim_holds_while_its_sign_changes_and_expires_after(store, clock):
    mine = Claims(store, list)
    stranger(store)
    for beat in range(2, 6):
        assert mine.claimed_elsewhere() == {"a"}
        clock.ahead += DEAD - 5
        stranger(store, beat=beat)
    assert mine.claimed_elsewhere() == {"a"}
    clock.ahead += DEAD + 1
    assert mine.claimed_elsewhere() == set()
    assert mine.take(["a"]) == {"a"}
    assert "stranger.json" not in store.names("sweeps", ".json")


def test_a_clock_that_is_wrong_by_minutes_kills_no_sweep(store):
    mine = Claims(store, list)
    stranger(store, at=module.time.time() - 5 * 60)
    assert mine.claimed_elsewhere() == {"a"}
    # Nor one that is wrong by an hour, where the file changes before the first claim. Nobody removes it meanwhile.
    mine = Claims(store, list)
    stranger(store, at=module.time.time() - OLD - 3600, beat=2)
    assert mine.claimed_elsewhere() == set()
    stranger(store, at=module.time.time() - OLD - 3600, beat=3)
    assert mine.claimed_elsewhere() == {"a"}


@pytest.mark.parametrize("hours", [-1, 1], ids=["behind", "ahead"])
def test_a_sweep_whose_clock_is_wrong_by_an_hour_is_seen_while_its_file_is_written(store, clock, hours):
    stranger(store, at=module.time.time() + 3600 * hours)
    assert len(alive(store)) == 1
    clock.ahead += DEAD + 1
    assert not alive(store)


def test_what_a_sweep_of_yesterday_left_holds_nothing_and_is_removed(store, clock):
    mine = Claims(store, list)
    stranger(store, at=module.time.time() - OLD - 60)
    assert mine.take(["a"]) == {"a"}
    clock.ahead += DEAD + 1
    assert mine.claimed_elsewhere() == set()
    assert "stranger.json" not in store.names("sweeps", ".json")


def test_a_claim_that_nobody_could_compare_is_none(store, monkeypatch):
    mine = Claims(store, list)
    mine.take(["held"])
    stranger(store)

    def silent(folder, suffix):
        raise OSError("timed out")

    monkeypatch.setattr(store, "names", silent)
    with pytest.raises(OSError, match="timed out"):
        mine.take(["a", "held"])
    assert mine.held == {"held"}


def test_no_error_of_a_store_ends_the_heartbeat(store, monkeypatch):
    class Bug(Exception):
        """As some file systems of fsspec raise."""

    beats = threading.Semaphore(0)

    def fail(path, value):
        beats.release()
        raise Bug

    monkeypatch.setattr(module, "PERIOD", 0.001)
    with Claims(store, list):
        monkeypatch.setattr(store, "write_json", fail)
        assert all(beats.acquire(timeout=60) for _ in range(2))


def test_an_empty_folder_in_the_place_of_a_store_takes_no_claim(store, tmp_path):
    """As a disk leaves that is unmounted: no job begins there, since no sweep has its file there."""
    store.write("grids/a.yaml", b"")
    with Claims(store, list) as mine:
        assert mine.take(["a"]) == {"a"}
        (tmp_path / "grids/a.yaml").unlink()
        (tmp_path / mine.path).unlink()
        with pytest.raises(StoreError, match="neither grids nor results: it was moved, removed or unmounted"):
            mine.take(["b"])
        assert not store.names("sweeps", ".json")
        store.write("grids/a.yaml", b"")
        assert mine.take(["b"]) == {"b"}


@pytest.mark.slow
def test_a_process_that_died_on_this_machine_holds_nothing(store, tmp_path):
    code = (
        "import sys; from orchestrator.store.claims import Claims; from orchestrator.store.store import Store\n"
        "claims = Claims(Store(sys.argv[1]), list); claims.take(['a']); print('had', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "had\n"
        mine = Claims(store, list)
        assert mine.take(["a", "b"]) == {"b"}
        assert len(alive(store)) == 2
        process.kill()
    assert mine.take(["a"]) == {"a"}
    assert len(alive(store)) == 1


def test_a_sweep_that_slept_while_its_claims_expired_claims_anew_what_it_does_not_run(store, clock):
    mine = Claims(store, lambda: [{"job": "runs"}])
    assert mine.take(["runs", "ahead"]) == {"runs", "ahead"}
    clock.ahead += DEAD / 2
    mine.take([])
    assert mine.held == {"runs", "ahead"}
    # Stopped for a while, another sweep does what was claimed ahead, and is through with it.
    clock.ahead += DEAD + 1
    assert not mine.holds("ahead")
    assert mine.holds("runs")
    assert mine.held == {"runs"}


def test_the_sign_is_there_inside_the_block_with_what_runs_and_gone_after(store):
    with Claims(store, lambda: [{"job": "a", "title": "t"}]) as claims:
        (sign,) = alive(store)
        assert sign["running"] == [{"job": "a", "title": "t"}]
    assert store.names("sweeps", ".json") == []
    assert claims.id not in json.dumps(alive(store))


def test_a_half_written_sign_is_nobodys(store):
    store.write("sweeps/broken.json", b'{"at": 1')
    store.write("sweeps/foreign.json", b'{"x": 1}')
    assert Claims(store, list).take(["a"]) == {"a"}
    assert len(alive(store)) == 1
    assert set(store.skipped) == {"sweeps/broken.json", "sweeps/foreign.json"}


def test_a_slurm_job_that_begins_again_knows_that_its_sweep_of_before_is_over(store, monkeypatch):
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "c")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    for before in ({"slurm_job": "c:8", "slurm_restarts": 0}, {"slurm_job": "c:7", "slurm_restarts": 1}):
        # Another job, and another sweep of this one.
        stranger(store, **before)
        assert Claims(store, list).take(["a"]) == set()
    stranger(store, slurm_job="c:7", slurm_restarts=0)
    assert Claims(store, list).take(["a"]) == {"a"}
