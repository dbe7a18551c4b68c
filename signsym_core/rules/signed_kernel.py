"""The Triton kernel behind `signsym_core.rules.signed`."""

from __future__ import annotations

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Numbers of W that one instance of the kernel handles.
BLOCK = 2048


@triton.jit(do_not_specialize=["row"])  # type: ignore[untyped-decorator]
def _signed(  # type: ignore[no-untyped-def]
    weight, magnitudes, sizes, out, count, row, DRAWN: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    w = tl.load(weight + place, mask=inside)
    b = tl.load(sizes + place // row, mask=inside) if ROWS else tl.load(sizes)
    if DRAWN:
        b = tl.load(magnitudes + place, mask=inside).to(tl.float32) * b
    signed = tl.where(w > 0, b, tl.where(w < 0, -b, 0.0))
    tl.store(out + place, signed.to(out.dtype.element_ty), mask=inside)


def launch(weight: Tensor, magnitudes: Tensor | None, sizes: Tensor, out: Tensor) -> None:
    """Write B into `out`; all tensors of the weight's shape lie in memory alike. `sizes`: [1], or one for each row."""
    count = weight.numel()
    row = count // weight.shape[0]
    drawn = weight if magnitudes is None else magnitudes
    kinds = {"DRAWN": magnitudes is not None, "ROWS": sizes.numel() > 1, "BLOCK": BLOCK}
    with torch.cuda.device(weight.device) if weight.is_cuda else contextlib.nullcontext():
        # `enable_fp_fusion` changes nothing where one product is all; unset, it draws a warning from some versions.
        options = {"num_warps": 8, "enable_fp_fusion": False}
        _signed[(triton.cdiv(count, BLOCK),)](weight, drawn, sizes, out, count, row, **kinds, **options)
