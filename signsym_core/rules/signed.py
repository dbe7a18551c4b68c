"""B = s · M ∘ sign(W), what sign-symmetric rules build B from; on a GPU in one pass over the numbers.

Operation by operation a GPU would move W and its signs through memory up to five times for a few multiplications,
which is what B costs there. The kernel gives the same bits; where Triton cannot be used, the operations serve.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor


class NoKernelWarning(UserWarning):
    """The kernel cannot be used, so that B is built operation by operation, with the same numbers."""


def write_signed(weight: Tensor, magnitudes: Tensor | None, size: Tensor | float, out: Tensor) -> None:
    """Write size · magnitudes ∘ sign(weight) into `out`, computed in the size's type and rounded once to `out`'s.

    `magnitudes`, of the weight's shape, may be of a smaller type that holds them exactly; None: 1 everywhere. `size`
    is a tensor that broadcasts over the weight, or a number, which counts as of the weight's type. sign(0) = 0.
    """
    if weight.is_cuda and _one_pass(weight, magnitudes, size, out):
        return
    kind = size.dtype if isinstance(size, Tensor) else weight.dtype
    exact = out if out.dtype == kind else torch.empty_like(weight, dtype=kind)
    if weight.dtype == kind:
        torch.sign(weight, out=exact)
    else:
        exact.copy_(weight.sign())
    if magnitudes is not None:
        exact.mul_(magnitudes)
    torch.mul(exact, size, out=out)


def smallest(magnitudes: Tensor) -> Tensor:
    """The same numbers in one byte each where they are whole and below 256, as those drawn on a CPU are."""
    small = magnitudes.to(torch.uint8)
    return small if torch.equal(small.to(magnitudes.dtype), magnitudes) else magnitudes


def _one_pass(weight: Tensor, magnitudes: Tensor | None, size: Tensor | float, out: Tensor) -> bool:
    """`write_signed` by one kernel; False where these tensors, or this machine, have to do without."""
    sizes = size if isinstance(size, Tensor) else torch.full((), size, dtype=torch.float32, device=weight.device)
    by_row = (weight.shape[0], *[1] * (weight.ndim - 1))
    served = (
        sizes.dtype == torch.float32
        # Of a rounded weight a number would be rounded as well.
        and (weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and isinstance(size, Tensor)))
        and weight.numel() > 0
        and (sizes.numel() == 1 or sizes.shape == by_row)
        # Numbers that lie without gaps, row by row, in the same order in all tensors.
        and weight.stride(0) * weight.shape[0] == weight.numel()
        and weight.stride() == out.stride()
        and (magnitudes is None or magnitudes.stride() == weight.stride())
    )
    kernel = _kernel() if served else None
    if kernel is None:
        return False
    kernel(weight, magnitudes, sizes.reshape(-1), out)
    return True


@functools.cache
def _kernel() -> Callable[[Tensor, Tensor | None, Tensor, Tensor], None] | None:
    """The kernel, compiled and tried once; None with a warning where this machine has no Triton that works."""
    try:
        from signsym_core.rules.signed_kernel import launch

        number = torch.ones(1, device="cuda")
        launch(number, None, number, torch.empty_like(number))
    except Exception as error:  # Triton has no class of its own for what it misses, a compiler for one.
        warnings.warn(f"B is built operation by operation: {error}", NoKernelWarning, stacklevel=2)
        return None
    return launch
