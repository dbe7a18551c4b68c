"""Validation of codes and of their labels. Each error names the argument, what was expected and what came."""

from __future__ import annotations

import torch
from torch import Tensor

from signsym_core.validation import shown


def binary_codes(codes: object, name: str) -> Tensor:
    """Codes as int8 of -1 and +1 [n, bits], from bool, or from numbers that are exactly -1 and +1.

    0 and 1 are refused, because they are ambiguous: a sign function maps both to +1.
    """
    expected = f"{name} must be [n, bits], n and bits at least 1, bool or exactly -1 and +1"
    if not isinstance(codes, Tensor):
        raise ValueError(f"{expected}, a torch tensor, got {shown(codes)}")
    if codes.ndim != 2 or codes.numel() == 0 or codes.is_complex():
        raise ValueError(f"{expected}, got {codes.dtype}{list(codes.shape)}")
    if codes.dtype == torch.bool:
        return codes.to(torch.int8) * 2 - 1
    # In an unsigned type -1 would be its largest number.
    binary = (codes == 1) | (codes == -1) if codes.dtype.is_signed else codes == 1
    strange = codes[~binary]
    if len(strange):
        advice = "; of real outputs take the signs first, of bits codes.bool()"
        raise ValueError(f"{expected}, got {codes.dtype} with {strange[0].item()} in it{advice}")
    return codes.to(torch.int8)


def check_code_labels(labels: object, count: int, device: torch.device, name: str) -> None:
    """int64 [count] from 0 on, or 0/1 [count, classes], on the device of the codes."""
    expected = f"{name} must be int64[{count}] from 0 on, or 0/1 [{count}, classes]"
    if not isinstance(labels, Tensor):
        raise ValueError(f"{expected}, a torch tensor, got {shown(labels)}")
    strange = f"{expected}, got {labels.dtype}{list(labels.shape)}"
    if labels.ndim not in (1, 2) or len(labels) != count or labels.is_complex():
        raise ValueError(strange)
    if labels.device != device:
        raise ValueError(f"{name} must be on the device of the codes, {device}, got {labels.device}")
    if labels.ndim == 1 and labels.dtype != torch.int64:
        raise ValueError(strange)
    fitting = labels >= 0 if labels.ndim == 1 else (labels == 0) | (labels == 1)
    if not fitting.all():
        raise ValueError(f"{strange} with {labels[~fitting][0].item()} in it")
