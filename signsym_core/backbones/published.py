"""The interface of torchvision's networks, which have published weights."""

from __future__ import annotations

import dataclasses

from torch import nn

from signsym_core.backbones.base import Backbone


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedBackbone(Backbone):
    """The network that torchvision makes by the function of the backbone's name."""

    def network(self, channels: int) -> nn.Module:
        from torchvision import models

        network: nn.Module = getattr(models, self.name)()
        return network
