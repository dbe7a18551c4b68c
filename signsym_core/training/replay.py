"""GPU work that launches the same kernels every time: recorded once per shape as a CUDA graph, then replayed.

Launching some 500 kernels one by one takes longer than a GPU needs for a small batch; a graph is one launch. Code on
the host (Python, version counters, hooks) runs while the work is recorded, not when it is replayed, so `Host` says what
the host has to do for each replay.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

#: Calls of a shape that run kernel by kernel before it is recorded: libraries choose kernels and workspaces then.
WARM_UP = 3


class Host(Protocol):
    """The host's share of replayed work."""

    #: Generators that the work draws from, besides torch's default one.
    generators: list[torch.Generator]

    def advance(self) -> None:
        """Advance the counters that the work advances when it runs kernel by kernel."""

    def seed(self) -> None:
        """Seed the generators for the next replay."""


class NotRecordedWarning(UserWarning):
    """The work cannot be a CUDA graph, so that it runs kernel by kernel, with the same numbers."""


class Replay:
    """`work` on tensors of a GPU: the first calls of each shape kernel by kernel, later ones as one CUDA graph.

    `work` takes and returns tensors and may not wait for the device; the returned tensors are copies.
    """

    def __init__(self, work: Callable[..., tuple[Tensor, ...]], host: Host) -> None:
        self.work, self.host = work, host
        self._calls: Counter[tuple[torch.Size, ...]] = Counter()
        self._graphs: dict[tuple[torch.Size, ...], tuple[torch.cuda.CUDAGraph, list[Tensor], tuple[Tensor, ...]]] = {}
        self._side = torch.cuda.Stream()
        self._refused = False

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        shape = tuple(tensor.shape for tensor in inputs)
        self._calls[shape] += 1
        if shape in self._graphs:
            graph, places, results = self._graphs[shape]
            for place, tensor in zip(places, inputs, strict=True):
                place.copy_(tensor)
            self.host.advance()
            self.host.seed()
            graph.replay()
            return tuple(result.clone() for result in results)
        if self._calls[shape] <= WARM_UP or self._refused:
            return self.by_kernel(*inputs)
        return self._record(shape, inputs)

    def by_kernel(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The work without a graph."""
        # Aside, because autograd remembers on which stream a parameter's gradient was first added up.
        here = torch.cuda.current_stream()
        self._side.wait_stream(here)
        with torch.cuda.stream(self._side):
            results = self.work(*inputs)
        here.wait_stream(self._side)
        for tensor in inputs:
            tensor.record_stream(self._side)
        for tensor in results:
            tensor.record_stream(here)
        return results

    def _record(self, shape: tuple[torch.Size, ...], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        places = [tensor.clone() for tensor in inputs]
        graph = torch.cuda.CUDAGraph()
        for generator in self.host.generators:
            graph.register_generator_state(generator)
        try:
            # Other threads, Ray's for one, may go on with what they do on the device.
            with torch.cuda.graph(graph, stream=self._side, capture_error_mode="thread_local"):
                results = self.work(*places)
        except RuntimeError as error:
            warnings.warn(f"this training step cannot be a CUDA graph: {error}", NotRecordedWarning, stacklevel=3)
            self._refused = True
            return self.by_kernel(*inputs)
        self._graphs[shape] = (graph, places, results)
        # The host has counted this step while it was recorded.
        self.host.seed()
        graph.replay()
        return tuple(result.clone() for result in results)


def one_ahead(batches: Iterator[tuple[Tensor, ...]], device: torch.device) -> Iterator[tuple[Tensor, ...]]:
    """The same batches; on a GPU the next one is prepared concurrently with the work on this one."""
    if device.type != "cuda":
        yield from batches
        return
    side, here = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    side.wait_stream(here)
    while True:
        with torch.cuda.stream(side):
            batch = next(batches, None)
        here.wait_stream(side)
        if batch is None:
            return
        for tensor in batch:
            tensor.record_stream(here)
        yield batch
