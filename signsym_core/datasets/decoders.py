"""Image files read by processes: Pillow parses a file in Python, so that threads would wait for one another.

A process runs `decode.py` as a program, without torch, and ends with its standard input, so also with its parent.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import queue
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

from signsym_core.datasets import decode

#: Files for which one more process is worth its start, and files of one message to a process.
WORTH, MESSAGE = 500, 32


class Decoders:
    """Reads up to `count` files: in this process, or in as many others as the cores and the files are worth."""

    def __init__(self, count: int) -> None:
        processes = min(cores(), count // WORTH)
        self._free: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._processes = [_started() for _ in range(processes if processes > 1 else 0)]
        for process in self._processes:
            self._free.put(process)
        self._threads = ThreadPoolExecutor(processes) if self._processes else None

    def extents(self, files: Sequence[str]) -> Iterator[tuple[int, int] | None]:
        """`decode.extent` of each file."""
        return self._results("extent", files)

    def contents(self, files: Sequence[str], side: int | None) -> Iterator[decode.Content]:
        """`decode.content` of each file."""
        return self._results("content", files, side)

    def _results(self, name: decode.Reading, files: Sequence[str], side: int | None = None) -> Iterator[Any]:
        messages = [(name, side, files[start : start + MESSAGE]) for start in range(0, len(files), MESSAGE)]
        answers = self._threads.map(self._ask, messages) if self._threads else (decode.answer(m) for m in messages)
        for answer in answers:
            for result in answer:
                if isinstance(result, OSError):
                    raise result
                yield result

    def _ask(self, message: decode.Message) -> list[Any]:
        process = self._free.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump(message, process.stdin)
            process.stdin.flush()
            answer: list[Any] = pickle.load(process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            words = f"a process that decodes images ended (exit code {process.poll()})"
            raise OSError(errno.EIO, f"{words}, maybe for lack of memory; run it again") from error
        finally:
            # A dead one as well: who waits for it would wait for ever.
            self._free.put(process)
        return answer

    def __enter__(self) -> Decoders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            # A thread may wait for its answer: it would not end otherwise.
            process.kill()
        if self._threads:
            self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            # Closing writes what could not be written to a process that was dead already.
            with contextlib.suppress(BrokenPipeError):
                process.__exit__(kind, error, trace)
            process.wait()


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _started() -> subprocess.Popen[bytes]:
    # -P: the modules beside decode.py are none of the standard library's.
    command = [sys.executable, "-P", decode.__file__]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
