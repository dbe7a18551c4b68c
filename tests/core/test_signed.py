"""B = s · M ∘ sign(W): against a written-out loop, and the kernel against the operations that it replaces."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch
from interpreter import needs_triton, run_interpreted

from signsym_core.rules import signed
from signsym_core.rules.signed import smallest, write_signed

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

#: The kernel in Triton's interpreter, which cuts a bfloat16 off where a GPU rounds it: so it is expected cut off.
INTERPRETED = """
import torch
from signsym_core.rules.signed_kernel import launch
from test_signed import cases
from signsym_core.rules.signed import smallest, write_signed
for weight, magnitudes, size in cases():
    exact = torch.empty_like(weight)
    write_signed(weight, magnitudes, size, exact)
    cut = (exact.view(torch.int32) & -65536).view(torch.float32).bfloat16()
    for expected in (exact, cut):
        out = torch.empty_like(expected)
        launch(weight, None if magnitudes is None else smallest(magnitudes), size.reshape(-1), out)
        assert torch.equal(out, expected), (weight.shape, expected.dtype, magnitudes is None, size.shape)
print("compared")
"""


def cases(device="cpu"):
    """Weights with zeros of both signs in two memory formats, magnitudes of three kinds, sizes of two shapes."""
    generator = torch.Generator().manual_seed(0)
    for shape in ((5,), (700, 7), (6, 3, 3, 3)):
        for layout in (torch.contiguous_format, torch.channels_last)[: 1 + (len(shape) == 4)]:
            weight = torch.randn(shape, generator=generator)
            weight[0], weight[1] = 0.0, -0.0
            levels = torch.randint(0, 256, shape, generator=generator).float()
            sizes = (torch.tensor(0.0123), torch.rand(shape[0], *[1] * (len(shape) - 1), generator=generator))
            for magnitudes, size in itertools.product((None, levels + 0.37, levels), sizes):
                drawn = None if magnitudes is None else magnitudes.to(device).contiguous(memory_format=layout)
                yield weight.to(device).contiguous(memory_format=layout), drawn, size.to(device)


def test_each_number_is_the_size_times_the_magnitude_times_the_sign():
    for weight, magnitudes, size in cases():
        drawn = torch.ones_like(weight) if magnitudes is None else magnitudes
        numbers = zip(*(t.expand_as(weight).flatten().tolist() for t in (weight, drawn, size)), strict=True)
        expected = torch.tensor([0.0 if w == 0 else torch.tensor(m) * s * (1 if w > 0 else -1) for w, m, s in numbers])
        for dtype in (torch.float32, torch.bfloat16):
            out = torch.full_like(weight, torch.nan, dtype=dtype)
            write_signed(weight, None if magnitudes is None else smallest(magnitudes), size, out)
            assert torch.equal(out, expected.view(weight.shape).to(dtype))


def test_magnitudes_take_a_byte_only_where_they_lose_nothing():
    for numbers, dtype in (([0.0, 1, 255], torch.uint8), ([256.0], torch.float32), ([0.5], torch.float32)):
        assert smallest(torch.tensor(numbers)).dtype == dtype
    assert smallest(torch.tensor([-1.0])).dtype == torch.float32


@pytest.mark.slow
@needs_triton
def test_the_kernel_gives_the_bits_of_the_operations_in_the_interpreter(monkeypatch):
    run_interpreted(INTERPRETED, monkeypatch)


@needs_gpu
def test_the_kernel_gives_the_bits_of_the_operations_on_a_gpu(monkeypatch):
    for weight, magnitudes, size in cases("cuda"):
        for dtype in (torch.float32, torch.bfloat16):
            by_kernel, by_operations = (torch.empty_like(weight, dtype=dtype) for _ in range(2))
            drawn = None if magnitudes is None else smallest(magnitudes)
            assert signed._one_pass(weight, drawn, size, by_kernel)
            with monkeypatch.context() as patch:
                patch.setattr(signed, "_one_pass", lambda *_: False)
                write_signed(weight, magnitudes, size, by_operations)
            assert torch.equal(by_kernel, by_operations)


@needs_gpu
def test_tensors_that_lie_otherwise_in_memory_are_left_to_the_operations():
    weight = torch.randn(6, 3, 3, 3, device="cuda")
    out = torch.empty_like(weight, memory_format=torch.channels_last)
    assert not signed._one_pass(weight, None, 0.5, out)
    write_signed(weight, None, 0.5, out)
    assert torch.equal(out, weight.sign() * 0.5)


@needs_gpu
def test_without_triton_a_gpu_builds_the_same_numbers_with_a_warning(monkeypatch):
    monkeypatch.setitem(sys.modules, "signsym_core.rules.signed_kernel", None)
    signed._kernel.cache_clear()
    weight = torch.randn(6, 3, device="cuda")
    out = torch.empty_like(weight)
    with pytest.warns(signed.NoKernelWarning, match="operation by operation"):
        write_signed(weight, None, 0.5, out)
    assert torch.equal(out, weight.sign() * 0.5)
    signed._kernel.cache_clear()
