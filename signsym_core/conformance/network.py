"""What the suites share: a small network with its images, and comparisons of tensors by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from signsym_core.rules.held import weights_of

#: Makes a network of fixed weights, an equal one at each call.
Network = Callable[[], nn.Module]


def small_network(like: nn.Module | None = None) -> nn.Sequential:
    """A small network of fixed weights, or of those of `like`."""
    generator = torch.Generator().manual_seed(0)
    activation = nn.ReLU(inplace=True)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), activation, nn.Flatten(), nn.Linear(128, 5))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        if like is not None:
            for parameter, (_, value) in zip(network.parameters(), weights_of(like), strict=True):
                parameter.copy_(value)
    return network


def small_images(number: int = 1) -> Tensor:
    """Images for the small network, others for another number."""
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(number))


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor], skip: str = "") -> bool:
    """Whether both have the same tensors; those of the layer `skip` may differ."""
    names = [name for name in one if not skip or not name.startswith(skip + ".")]
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in names)


def assert_close(
    actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str, tolerance: float = 1e-5
) -> None:
    """Raise AssertionError where a tensor of `actual` differs by more than `tolerance` of the expected one's norm."""
    for name, tensor in actual.items():
        error = float((tensor - expected[name]).norm() / expected[name].norm().clamp_min(1e-30))
        assert error <= tolerance, f"{what}: relative error {error:.2e} in {name}, expected at most {tolerance:g}"
