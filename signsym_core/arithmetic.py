"""The arithmetic of a device: the precision of its products, and whether the same work gives the same bits.

A CPU has one arithmetic, so that only "bf16" changes its numbers. On a GPU both are choices: products of float32
numbers may be rounded to fewer bits, and the fastest kernels add in an order that changes from run to run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

#: "float32": products of float32 numbers as they are. "tf32": in convolutions their factors are rounded to 10 bits of
#: mantissa where the device can, linear layers are float32: torch's own default. "bf16": the forward and the backward
#: pass in bfloat16 (autocast), with weights, feedback matrices, losses and the optimiser in float32.
Precision = Literal["float32", "tf32", "bf16"]


def effective(precision: Precision, device: torch.device) -> Precision:
    """The precision that `device` really uses under this setting: a CPU has no TF32."""
    return "float32" if precision == "tf32" and device.type != "cuda" else precision


@contextlib.contextmanager
def arithmetic(precision: Precision, deterministic: bool, device: torch.device, *models: nn.Module) -> Iterator[None]:
    """Inside the block, `device` computes in this precision; `models` are those that "bf16" runs in bfloat16.

    Their outputs are float32 in any case. With `deterministic` the same work gives the same bits on the same kind of
    device, with the same version of torch and of its libraries. Torch's previous settings are restored afterwards.
    """
    with contextlib.ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(_kernels(precision, deterministic))
        if precision == "bf16":
            for model in dict.fromkeys(models):
                stack.enter_context(_lowered(model))
        yield


@contextlib.contextmanager
def _kernels(precision: Precision, deterministic: bool) -> Iterator[None]:
    cudnn: Any = torch.backends.cudnn
    matmul = torch.backends.cuda.matmul
    # Both kinds alike, since torch refuses to say what the two together are set to where they differ.
    products = (cudnn.conv, cudnn.rnn)
    usual = cudnn.deterministic, cudnn.benchmark
    before = [kind.fp32_precision for kind in products]
    linear = matmul.fp32_precision
    try:
        cudnn.deterministic, cudnn.benchmark = deterministic, False
        for kind in products:
            kind.fp32_precision = "ieee" if precision == "float32" else "tf32"
        if linear == "tf32":
            matmul.fp32_precision = "ieee"
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = usual
        for kind, value in zip(products, before, strict=True):
            kind.fp32_precision = value
        if linear == "tf32":
            matmul.fp32_precision = linear


@contextlib.contextmanager
def _lowered(model: nn.Module) -> Iterator[None]:
    usual = model.forward

    def forward(images: Tensor) -> Any:
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            outputs = usual(images)
        return outputs.float() if isinstance(outputs, Tensor) else outputs

    # An attribute of this module, which takes precedence over its class's method: other modules are not affected.
    model.forward = forward
    try:
        yield
    finally:
        del model.forward
