"""The Triton kernels behind `signsym_core.training.update`: Adam, norms and rounding in one pass over all numbers.

Legend: T parameters, each cut into chunks of BLOCK numbers in the order of memory, C chunks in all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Numbers of a parameter that one instance of the kernel handles.
BLOCK = 4096
#: Addresses that one launch writes.
WRITTEN = 32
#: Columns of the table of addresses.
_COLUMNS = 5
#: Products are rounded before they are added, whatever the version of Triton takes for granted.
_EXACT = {"enable_fp_fusion": False}


@dataclasses.dataclass(frozen=True)
class Tables:
    """What the kernels know of T parameters, on their device."""

    #: Where a parameter, its first and second moment, its gradient and its bfloat16 copy lie, int64 [T, 5]. Gradient 0:
    #: the parameter stays as it is. Copy 0: none; otherwise the gradient is bfloat16 as well.
    addresses: Tensor
    #: How many numbers each has, int64 [T].
    counts: Tensor
    #: Learning rate and weight decay, float32 [T, 2].
    rates: Tensor
    #: β₁ and β₂, float64 [2].
    betas: Tensor
    #: Updates made, float32 [T].
    steps: Tensor
    #: lr / (1 - β₁ᵗ) and √(1 - β₂ᵗ), float32 [T, 2].
    corrections: Tensor
    #: Of each chunk its parameter and its first number, int64 [C].
    owners: Tensor
    firsts: Tensor
    #: Each parameter's first chunk, and C, int64 [T + 1].
    starts: Tensor
    #: Chunks of the parameter that has most.
    most: int
    #: Sums of squares of a chunk's gradient and new numbers, float32 [2, C].
    squares: Tensor


@triton.jit  # type: ignore[untyped-decorator]
def _write(gradients, addresses, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    for number in tl.static_range(len(gradients)):
        tl.store(addresses + number * WIDTH + 3, gradients[number])


@triton.jit  # type: ignore[untyped-decorator]
def _count(  # type: ignore[no-untyped-def]
    addresses, rates, betas, steps, corrections, tensors, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < tensors
    moves = tl.load(addresses + place * WIDTH + 3, mask=inside, other=0) != 0
    step = tl.load(steps + place, mask=inside, other=0.0) + tl.where(moves, 1.0, 0.0)
    tl.store(steps + place, step, mask=inside)
    # Powers by squaring, in float64: as exact as a power is, and the same on every device.
    left = step.to(tl.int32)
    first, second = tl.full([BLOCK], 1.0, tl.float64), tl.full([BLOCK], 1.0, tl.float64)
    base1, base2 = first * tl.load(betas), second * tl.load(betas + 1)
    for _ in range(31):
        odd = (left & 1) == 1
        first, second = tl.where(odd, first * base1, first), tl.where(odd, second * base2, second)
        base1, base2, left = base1 * base1, base2 * base2, left >> 1
    rate = tl.load(rates + place * 2, mask=inside, other=0.0)
    tl.store(corrections + place * 2, (rate.to(tl.float64) / (1 - first)).to(tl.float32), mask=inside & moves)
    tl.store(corrections + place * 2 + 1, tl.sqrt(1 - second).to(tl.float32), mask=inside & moves)


@triton.jit  # type: ignore[untyped-decorator]
def _block(  # type: ignore[no-untyped-def]
    row, place, inside, rate, decay, correction1, correction2, beta1, rest1, beta2, rest2, eps,
    DECOUPLED: tl.constexpr, MASKED: tl.constexpr
):  # fmt: skip
    mask: tl.constexpr = None
    if MASKED:
        mask = inside
    numbers = tl.multiple_of(tl.load(row).to(tl.pointer_type(tl.float32)), 16) + place
    moments1 = tl.multiple_of(tl.load(row + 1).to(tl.pointer_type(tl.float32)), 16) + place
    moments2 = tl.multiple_of(tl.load(row + 2).to(tl.pointer_type(tl.float32)), 16) + place
    gradient, copy = tl.load(row + 3), tl.load(row + 4)
    if copy != 0:
        g = tl.load(tl.multiple_of(gradient.to(tl.pointer_type(tl.bfloat16)), 16) + place, mask=mask).to(tl.float32)
    else:
        g = tl.load(tl.multiple_of(gradient.to(tl.pointer_type(tl.float32)), 16) + place, mask=mask)
    p, m, v = tl.load(numbers, mask=mask), tl.load(moments1, mask=mask), tl.load(moments2, mask=mask)
    if MASKED:
        g, p = tl.where(inside, g, 0.0), tl.where(inside, p, 0.0)
    gradient_square = tl.sum(g * g)
    if DECOUPLED:
        p -= rate * decay * p
    else:
        g += decay * p
    m = beta1 * m + rest1 * g
    v = beta2 * v + rest2 * g * g
    p -= correction1 * tl.math.div_rn(m, tl.math.div_rn(tl.math.sqrt_rn(v), correction2) + eps)
    tl.store(numbers, p, mask=mask)
    tl.store(moments1, m, mask=mask)
    tl.store(moments2, v, mask=mask)
    if copy != 0:
        tl.store(tl.multiple_of(copy.to(tl.pointer_type(tl.bfloat16)), 16) + place, p.to(tl.bfloat16), mask=mask)
    if MASKED:
        p = tl.where(inside, p, 0.0)
    return gradient_square, tl.sum(p * p)


@triton.jit  # type: ignore[untyped-decorator]
def _adam(  # type: ignore[no-untyped-def]
    addresses, counts, rates, corrections, owners, firsts, squares, chunks, beta1, rest1, beta2, rest2, eps,
    DECOUPLED: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    chunk = tl.program_id(0)
    tensor, first = tl.load(owners + chunk), tl.multiple_of(tl.load(firsts + chunk), BLOCK)
    row, count = addresses + tensor * WIDTH, tl.load(counts + tensor)
    if tl.load(row + 3) != 0:
        rate, decay = tl.load(rates + tensor * 2), tl.load(rates + tensor * 2 + 1)
        correction1, correction2 = tl.load(corrections + tensor * 2), tl.load(corrections + tensor * 2 + 1)
        place = first + tl.arange(0, BLOCK)
        # A chunk that is full needs no mask, which would keep 16 bytes from being one load.
        if first + BLOCK <= count:
            of_gradient, of_weight = _block(
                row, place, place < count, rate, decay, correction1, correction2, beta1, rest1, beta2, rest2, eps,
                DECOUPLED, False
            )  # fmt: skip
        else:
            of_gradient, of_weight = _block(
                row, place, place < count, rate, decay, correction1, correction2, beta1, rest1, beta2, rest2, eps,
                DECOUPLED, True
            )  # fmt: skip
        tl.store(squares + chunk, of_gradient)
        tl.store(squares + chunks + chunk, of_weight)
    else:
        tl.store(squares + chunk, 0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _norms(squares, starts, norms, MOST: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    tensor = tl.program_id(0)
    begin, end = tl.load(starts + tensor), tl.load(starts + tensor + 1)
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(0, MOST, BLOCK):
        place = begin + first + tl.arange(0, BLOCK)
        total += tl.load(squares + place, mask=place < end, other=0.0)
    tl.store(norms + tensor, tl.sqrt_rn(tl.sum(total)))


def launch(tables: Tables, gradients: Sequence[int], settings: dict[str, float], decoupled: bool) -> Tensor:
    """One update of all parameters from their gradients at these addresses; the norms of the gradients, [T].

    0: a parameter has no gradient. `settings`: beta1, rest1 = 1 - beta1, beta2, rest2 and eps.
    """
    count, chunks = len(tables.counts), len(tables.owners)
    for begin in range(0, count, WRITTEN):
        _write[(1,)](tuple(gradients[begin : begin + WRITTEN]), tables.addresses[begin:], WIDTH=_COLUMNS, **_EXACT)
    of_step = (tables.addresses, tables.rates, tables.betas, tables.steps, tables.corrections)
    _count[(triton.cdiv(count, 64),)](*of_step, count, WIDTH=_COLUMNS, BLOCK=64, **_EXACT)
    of_all = (tables.addresses, tables.counts, tables.rates, tables.corrections, tables.owners, tables.firsts)
    kinds = {"DECOUPLED": decoupled, "WIDTH": _COLUMNS, "BLOCK": BLOCK}
    _adam[(chunks,)](*of_all, tables.squares, chunks, **settings, **kinds, num_warps=8, **_EXACT)
    return norms(tables, 0)


def norms(tables: Tables, row: int, out: Tensor | None = None) -> Tensor:
    """The roots of the sums of a row of `tables.squares` over each parameter's chunks, [T]."""
    count = len(tables.counts)
    roots = torch.empty(count, device=tables.counts.device) if out is None else out
    _norms[(count,)](tables.squares[row], tables.starts, roots, MOST=tables.most, BLOCK=1024, **_EXACT)
    return roots
