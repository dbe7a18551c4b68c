"""The event log of a sweep, as JSON lines in its store, for programs that watch it: events/<start>-<sweep>.jsonl.

Each line is an object with `at` (ISO 8601, UTC), `event` and the event's values: sweep_started, job_started,
job_finished, job_failed, job_said, job_elsewhere and job_settled (another sweep runs the job, has ended it), ray_lost,
sweep_ended. On a local store each line is appended immediately; on a bucket, which cannot append, lines are written to
numbered files a few times a minute.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from orchestrator.jobs import keys
from orchestrator.jobs.job import Job
from orchestrator.store.store import Store, StoreError

#: Seconds between two files of lines on a store that cannot append.
PERIOD = 20.0


class Events:
    """The event log of one sweep, as a watcher of its jobs. `write` may be called from any thread."""

    def __init__(self, store: Store, sweep: str, jobs: Mapping[str, Job]) -> None:
        self.store, self.jobs = store, jobs
        self._folder = None if store.folder is None else store.folder / "events"
        self.name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{sweep[:8]}"
        self._lock = threading.Lock()
        self._pending: list[str] = []
        self._files = 0
        self._written = time.monotonic()

    def write(self, event: str, **values: Any) -> None:
        """Add one line."""
        timestamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"at": timestamp, "event": event, **values}, ensure_ascii=False) + "\n"
        with self._lock:
            self._pending.append(line)
            if self._folder is not None or time.monotonic() - self._written > PERIOD:
                self._flush()

    def started(self, key: str, gpu: float) -> None:
        self.write("job_started", **self._job(key), work=keys.work(key, self.jobs[key].spec), gpu=gpu)

    def finished(self, key: str, report: Mapping[str, Any]) -> None:
        values = {
            name: report[name] for name in ("seconds", "host", "gpu_peak", "gpu_total", "death") if name in report
        }
        self.write("job_finished", **self._job(key), **values)

    def failed(self, key: str, error: str, retried: bool) -> None:
        self.write("job_failed", **self._job(key), error=error, again=retried)

    def said(self, key: str, words: str) -> None:
        self.write("job_said", **self._job(key), words=words)

    def elsewhere(self, key: str) -> None:
        self.write("job_elsewhere", **self._job(key))

    def settled(self, key: str, done: bool) -> None:
        self.write("job_settled", **self._job(key), done=done)

    def _job(self, key: str) -> dict[str, str]:
        return {"job": key, "title": self.jobs[key].title}

    def __enter__(self) -> Events:
        if self._folder is not None:
            with contextlib.suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.write("sweep_ended", reason="" if kind is None else kind.__name__)
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        self._written = time.monotonic()
        if not self._pending:
            return
        text = "".join(self._pending)
        # A log line is no result: writing the results will raise the store's error.
        try:
            if self._folder is None:
                self.store.write(f"events/{self.name}-{self._files:05}.jsonl", text.encode())
                self._files += 1
            else:
                with (self._folder / f"{self.name}.jsonl").open("a", encoding="utf-8") as file:
                    file.write(text)
        except (StoreError, OSError):
            return
        self._pending.clear()
