"""The processes of Tune's trials, of which no error ends the run."""

from __future__ import annotations

from typing import Any

from ray.air.execution._internal import RayActorManager
from ray.exceptions import RayActorError, RayTaskError


class EndedError(RayActorError):
    """An exception that Tune does not know, wrapped as the death of a worker, which Tune handles."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(error_msg=f"{type(reason).__name__}: {reason}")
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[Exception]]:
        return EndedError, (self.reason,)


class Actors(RayActorManager):
    """Tune's manager of workers, in which every error fails its trial and never the run.

    Ray's class handles an actor's death and an error of the actor's code, and raises anything else out of the run:
    the memory monitor's report that it ended a worker, or a result that cannot be read.
    """

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if not isinstance(exception, RayActorError | RayTaskError):
            exception = EndedError(exception)
        super()._actor_task_failed(tracked_actor_task, exception)
