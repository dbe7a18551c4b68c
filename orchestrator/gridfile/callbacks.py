"""Tune's callbacks for trackers that people use, by the name that a grid gives: none of it is code of ours."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray import tune

#: Where each callback's class is, and the package that it needs beside Ray.
KNOWN: Mapping[str, tuple[str, str, str]] = {
    "tensorboard": ("ray.tune.logger", "TBXLoggerCallback", "tensorboardX"),
    "mlflow": ("ray.air.integrations.mlflow", "MLflowLoggerCallback", "mlflow"),
    "wandb": ("ray.air.integrations.wandb", "WandbLoggerCallback", "wandb"),
    "comet": ("ray.air.integrations.comet", "CometLoggerCallback", "comet_ml"),
}


class CallbackError(ValueError):
    """A callback that cannot be made."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CallbackChoice:
    """A callback's name and the keywords that it is made with."""

    name: str
    options: Mapping[str, Any]


def build(choice: CallbackChoice) -> tune.Callback:
    """The callback. Raises CallbackError where its package is not there or an option is wrong."""
    module, name, package = KNOWN[choice.name]
    try:
        importlib.import_module(package)
        made: tune.Callback = getattr(importlib.import_module(module), name)(**choice.options)
    except ImportError as error:
        raise CallbackError(f"callback {choice.name!r} needs the package {package}: pip install {package}") from error
    except (TypeError, ValueError) as error:
        raise CallbackError(f"callback {choice.name!r} cannot be made: {error}") from error
    return made
