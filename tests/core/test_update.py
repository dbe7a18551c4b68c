"""The update of a step by kernels: against torch's Adam, and against norms and rounding by torch's operations."""

from __future__ import annotations

import pytest
import torch
from interpreter import needs_triton, run_interpreted
from torch import nn

from signsym_core.training import update
from signsym_core.training.health import Health
from signsym_core.training.shadows import Shadows

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
STEPS = 4

#: Without a GPU the same comparison runs in Triton's interpreter.
INTERPRETED = """
import contextlib, torch
from signsym_core.training import update
from test_update import compared
torch.cuda.device, update._fits = (lambda device: contextlib.nullcontext()), (lambda parameter: True)
compared(torch.optim.Adam, False, "cpu")
compared(torch.optim.AdamW, True, "cpu")
print("compared")
"""


def network(device):
    """Parameters of several chunks, of less than one and of none but a few; the last layer never has a gradient."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 50, 3), nn.BatchNorm2d(50), nn.Linear(101, 60), nn.Linear(60, 10), nn.Linear(3, 2)]
    return nn.Sequential(*layers).to(device, memory_format=torch.channels_last)


def optimizer_of(kind, model):
    first, *others = model.parameters()
    groups = [{"params": [first], "lr": 1e-2}, {"params": others, "lr": 1e-3}]
    return kind(groups, weight_decay=5e-2, betas=(0.8, 0.99), fused=True, capturable=first.is_cuda)


def compared(kind, rounded, device):
    """Updates beside those of torch's optimiser of the same `kind`, of gradients in bfloat16 where `rounded`."""
    ours, theirs = network(device), network(device)
    optimizer, reference = optimizer_of(kind, ours), optimizer_of(kind, theirs)
    shadows = Shadows(ours) if rounded else None
    take = update.Update(optimizer, Health(ours, nn.Module(), optimizer), shadows)
    assert take._pass is not None
    for step in range(STEPS):
        for place, (one, other) in enumerate(zip(ours.parameters(), theirs.parameters(), strict=True)):
            copy = None if shadows is None else shadows.of(one)
            one.grad = other.grad = None
            gone = place >= 8 or (place == 7 and step == 1)
            gradient = torch.randn(one.shape).to(device, torch.float32 if copy is None else torch.bfloat16)
            (one if copy is None else copy).grad = None if gone else gradient.clone()
            other.grad = None if gone else torch.empty_like(other, requires_grad=False).copy_(gradient)
        versions = [parameter._version for parameter in ours.parameters()]
        norms = take()
        reference.step()
        for place, (one, other) in enumerate(zip(ours.parameters(), theirs.parameters(), strict=True)):
            assert torch.allclose(one, other, rtol=0, atol=3e-7)
            expected = torch.zeros(()) if other.grad is None else other.grad.norm().cpu()
            assert torch.allclose(norms[place].cpu(), expected, rtol=1e-5)
            assert torch.allclose(take.weight_norm(one).cpu(), one.detach().norm().cpu(), rtol=1e-5)
            assert (one._version > versions[place]) is (other.grad is not None)
            count = reference.state[other]["step"] if other in reference.state else 0
            assert float(optimizer.state[one]["step"]) == float(count)
            if take.rounded(one) is not None:
                close = {"rtol": 2**-7, "atol": 0} if device == "cpu" else {"rtol": 0, "atol": 0}
                # Triton's interpreter cuts a bfloat16 off where a GPU rounds it.
                assert torch.allclose(take.rounded(one).float(), one.detach().bfloat16().float(), **close)
    return ours, optimizer


@pytest.mark.slow
@needs_triton
def test_the_kernel_updates_as_torch_does_in_the_interpreter(monkeypatch):
    run_interpreted(INTERPRETED, monkeypatch)


@needs_gpu
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("rounded", [False, True])
def test_the_kernel_updates_as_torch_does_on_a_gpu(kind, rounded):
    compared(kind, rounded, "cuda")


@needs_gpu
def test_what_is_measured_at_the_start_has_the_bits_of_what_an_update_measures():
    ours, optimizer = compared(torch.optim.Adam, False, "cuda")
    measured = update.Update(optimizer, Health(ours, nn.Module(), optimizer), None)
    again = update.Update(optimizer, Health(ours, nn.Module(), optimizer), None)
    for group in optimizer.param_groups:
        group["lr"] = group["weight_decay"] = 0.0
    still = update.Update(optimizer, Health(ours, nn.Module(), optimizer), None)
    for parameter in ours.parameters():
        parameter.grad = torch.randn_like(parameter)
    still()
    for parameter in ours.parameters():
        assert torch.equal(measured.weight_norm(parameter), again.weight_norm(parameter))
        assert torch.equal(measured.weight_norm(parameter), still.weight_norm(parameter))


def test_without_the_kernel_torch_updates_and_the_copies_follow():
    model = network("cpu")
    optimizer, shadows = optimizer_of(torch.optim.Adam, model), Shadows(model)
    take = update.Update(optimizer, Health(model, nn.Module(), optimizer), shadows)
    copies = [copy for copy in map(take.rounded, model.parameters()) if copy is not None]
    assert len(copies) == 8
    for parameter in model.parameters():
        copy, gradient = shadows.of(parameter), torch.randn(parameter.shape)
        (parameter if copy is None else copy).grad = gradient if copy is None else gradient.bfloat16()
    expected = [(shadows.of(p) if shadows.of(p) is not None else p).grad.float().norm() for p in model.parameters()]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    norms = take()
    assert torch.allclose(norms, torch.stack(expected))
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert not torch.equal(parameter, old)
        copy = take.rounded(parameter)
        assert copy is None or torch.equal(copy, parameter.detach().bfloat16())
        assert take.weight_norm(parameter) is None
