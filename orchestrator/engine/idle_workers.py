"""Workers between two jobs: how many of them stay."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from ray.tune.utils.object_cache import _ObjectCache


class IdleWorkers(_ObjectCache):
    """Tune's idle workers, by the resources that they hold. Tune keeps as many as trials are waiting for, and one.

    While `keeps_all` is true all are kept, until a trial requests resources that none of them has: a new one would
    start with everything that a worker loads, and the device idle meanwhile.
    """

    def __init__(self, keeps_all: Callable[[], bool]) -> None:
        super().__init__(may_keep_one=True)
        self._keeps_all = keeps_all

    def cache_object(self, key: Any, obj: Any) -> bool:
        if not self._kept(key):
            return super().cache_object(key, obj)
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Generator[Any]:
        if force_all or not self._kept():
            yield from super().flush_cached_objects(force_all)

    def _kept(self, *more: Any) -> bool:
        requested = [key for key, count in self._max_num_objects.items() if count]
        return self._keeps_all() and all(key in more or self._cached_objects.get(key) for key in requested)
