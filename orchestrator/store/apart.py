"""Calls in a new process, which begins at once: its memory is freed when it ends, and two processors work."""

from __future__ import annotations

import contextlib
import functools
import gc
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, TypeVar

R = TypeVar("R")
#: Calls a function in another process, and returns what waits for the result.
Call = Callable[..., Callable[[], Any]]


@contextlib.contextmanager
def apart(function: Callable[..., R], *arguments: object) -> Iterator[Callable[[], R]]:
    """Call a function in a new process, which ends with the context; yields what waits for the call's result.

    That raises what the function raised, and ChildProcessError where the process ended without a result.
    """
    with calling_apart() as call:
        yield call(function, *arguments)


@contextlib.contextmanager
def calling_apart() -> Iterator[Call]:
    """A new process, which ends with the context: yields what calls a function in it, one call after the other.

    It returns what waits for the call's result, see `apart`.
    """
    # A pipe instead of a pool: a pool's locks need /dev/shm, which not every container has.
    fresh = multiprocessing.get_context("spawn")
    here, there = fresh.Pipe()
    # The main thread ends it with the context, and it may start another one itself, as one that prepares a sweep does
    # to plan it. A daemon may not, but a program that ends does not wait for what its other threads began.
    daemon = threading.current_thread() is not threading.main_thread()
    process = fresh.Process(target=_answer, args=(there,), daemon=daemon)
    process.start()
    there.close()
    results: list[Any] = []
    calls = 0

    def call(function: Callable[..., Any], *arguments: object) -> Callable[[], Any]:
        nonlocal calls
        if calls:
            # Two that both send would wait for each other.
            receive(calls - 1)
        # One that has ended has no result, which says so.
        with contextlib.suppress(BrokenPipeError):
            here.send((function, arguments))
        calls += 1
        return functools.partial(result, calls - 1)

    def receive(number: int) -> None:
        while len(results) <= number:
            try:
                results.append(here.recv())
            except (EOFError, ConnectionResetError):
                process.join()
                raise ChildProcessError(
                    f"the process that reads the grid and the store ended early, with status {process.exitcode}"
                    f"{'; -9 often means that the machine ran out of memory' if process.exitcode == -9 else ''}"
                ) from None

    def result(number: int) -> Any:
        receive(number)
        if isinstance(results[number], Exception):
            raise results[number]
        return results[number]

    try:
        yield call
    finally:
        process.terminate()
        process.join()
        here.close()


def _answer(there: Connection) -> None:
    # What is made here stays until the end: to search it for garbage takes a tenth of the time.
    gc.disable()
    # Ctrl-C reaches both processes; the one that waits ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whoever waits for results may have been killed.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            function, arguments = there.recv()
            try:
                result = function(*arguments)
            except Exception as error:
                result = error
            there.send(result)
