"""The interface of torchvision's networks, which have published weights."""

from __future__ import annotations

import dataclasses

from torch import nn

from signsym_core.backbones.base import Backbone
from signsym_core.vision import torchvision


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedBackbone(Backbone):
    """The network that torchvision makes by the function of the backbone's name."""

    def network(self, channels: int) -> nn.Module:
        network: nn.Module = getattr(torchvision("models"), self.name)()
        return network
