"""A training step in pieces with the result of the whole batch, for a device without memory for the whole batch.

The loss of a batch need not be a sum over its images, so the pieces go through the network twice: once to get every
output o, then the loss L(o) and its gradient dL/do on the outputs alone, which are small, then once more with a graph,
each piece starting its backward pass from its own rows of dL/do. The parameters' gradients add up to those of the whole
batch, up to rounding.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu

from signsym_core.models.outputs import outputs_of
from signsym_core.models.penalty import has_penalty, penalised
from signsym_core.registry import require
from signsym_core.tasks import Objective

#: Layers in which an image's output depends on the rest of its batch, or whose noise is no factor.
_UNDIVIDED = (nn.modules.batchnorm._BatchNorm, nn.AlphaDropout, nn.FeatureAlphaDropout)
_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def backward(model: nn.Module, objective: Objective, images: Tensor, labels: Tensor, micro_batch: int | None) -> Tensor:
    """Add the gradient of `objective` on a batch to the parameters', its own too, and return the loss, detached.

    At most `micro_batch` images [n, channels, height, width] are in the network at once; None: all of them. Dropout
    draws the masks of the whole batch. What modules add to the loss by themselves counts (see
    `signsym_core.models.penalty`). A network with batch normalisation needs the whole batch for its statistics: it gets
    it, and what its backward pass will need waits in the host's memory instead.

    Raises ValueError for a micro-batch below 1, for a network with a penalty whose batch is larger than that, and where
    dropout is applied to something that has no row for each image. Dropout that a network applies without a layer of
    its own is not seen, but for that of nn.MultiheadAttention, which gets the whole batch like batch normalisation.
    """
    if micro_batch is not None:
        require(micro_batch >= 1, "micro_batch", "a whole number, at least 1", micro_batch)
    if micro_batch is None or len(images) <= micro_batch:
        return _undivided(model, objective, images, labels)
    if has_penalty(model):
        raise ValueError(
            f"expected a batch of at most {micro_batch} images, got {len(images)}: the network adds to its own loss, "
            f"which cannot be computed in pieces. Take a smaller batch_size, or more memory"
        )
    if any(_needs_whole_batch(module) and module.training for module in model.modules()):
        with save_on_cpu(pin_memory=images.is_cuda):
            return _undivided(model, objective, images, labels)
    with _dropout_of_the_whole_batch(model, len(images)) as piece:
        chunks = [slice(start, start + micro_batch) for start in range(0, len(images), micro_batch)]
        pieces = []
        for chunk in chunks:
            with piece(chunk), torch.no_grad():
                pieces.append(outputs_of(model, images[chunk]))
        outputs = torch.cat(pieces).requires_grad_()
        loss = objective(outputs, labels)
        loss.backward()
        assert outputs.grad is not None
        for chunk in chunks:
            with piece(chunk):
                outputs_of(model, images[chunk]).backward(outputs.grad[chunk])
    return loss.detach()


def _needs_whole_batch(module: nn.Module) -> bool:
    return isinstance(module, _UNDIVIDED) or (isinstance(module, nn.MultiheadAttention) and module.dropout > 0)


def _undivided(model: nn.Module, objective: Objective, images: Tensor, labels: Tensor) -> Tensor:
    loss = penalised(model, objective(outputs_of(model, images), labels))
    loss.backward()
    return loss.detach()


def _is_dropout(module: nn.Module) -> bool:
    # A network with torchvision's stochastic depth has imported it; importing it here would take as long as torch.
    operators = sys.modules.get("torchvision.ops")
    return isinstance(module, _DROPOUT if operators is None else (*_DROPOUT, operators.StochasticDepth))


@contextlib.contextmanager
def _dropout_of_the_whole_batch(
    model: nn.Module, batch: int
) -> Iterator[Callable[[slice], contextlib.AbstractContextManager[None]]]:
    """Inside the block every dropout layer draws its mask for `batch` images once, and uses its rows for each piece.

    Yields a context manager that sets the rows of the next piece. The masks are those of an undivided pass: drawn in
    the same order, with the same shapes, from the same generator.
    """
    layers = [
        _Dropout(name, module, batch)
        for name, module in model.named_modules()
        if _is_dropout(module) and module.training
    ]

    @contextlib.contextmanager
    def piece(rows: slice) -> Iterator[None]:
        for layer in layers:
            layer.rows, layer.calls = rows, 0
        yield

    for layer in layers:
        # An attribute of this module, which takes precedence over its class's method: other modules are not affected.
        layer.module.forward = layer.forward
    try:
        yield piece
    finally:
        for layer in layers:
            del layer.module.forward


class _Dropout:
    """A dropout layer inside the block: one mask [batch, ...] for each call of the layer in one pass."""

    def __init__(self, name: str, module: nn.Module, batch: int) -> None:
        self.name, self.module, self.batch = name, module, batch
        self.masks: list[Tensor] = []
        self.rows, self.calls = slice(0, 0), 0

    def forward(self, inputs: Tensor) -> Tensor:
        expected = len(range(*self.rows.indices(self.batch)))
        if len(inputs) != expected:
            raise ValueError(
                f"expected an input with a row for each of {expected} images in dropout layer {self.name!r}, got "
                f"{len(inputs)} rows; a batch of such a network cannot be divided"
            )
        if self.calls == len(self.masks):
            last = inputs.dim() == 4 and not inputs.is_contiguous()
            layout = torch.channels_last if last else torch.contiguous_format
            ones = torch.ones(self.batch, *inputs.shape[1:], dtype=inputs.dtype, device=inputs.device)
            forward = type(self.module).forward
            self.masks.append(forward(self.module, ones.contiguous(memory_format=layout)))
        mask = self.masks[self.calls]
        self.calls += 1
        return inputs * mask[self.rows]
