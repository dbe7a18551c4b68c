"""Ray Tune's callbacks for experiment trackers, by the name that a grid uses for each."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Iterator, Mapping
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
#: The variables by which each gets its secrets.
VARIABLES: Mapping[str, str] = {
    "mlflow": "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    "wandb": "WANDB_API_KEY",
    "comet": "COMET_API_KEY",
}
#: Words in an option's name, without case and punctuation, that say that its value is a secret. The key of an
#: experiment is Comet's name for its number.
_SECRET = re.compile(
    r"key$|keys$|token(?!i[sz])|secret|passw|passphrase|passcode|pwd|credential|auth(?!or($|s|it))|bearer|cookie|signature|sas$"
)
_NO_SECRET = re.compile(r"(file|path|dir|folder)$|experimentkey$")
#: A user, or a user and a password, in an address.
_USER = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]*@", re.IGNORECASE)


def secrets(name: str, value: object) -> Iterator[str]:
    """The names, such as "settings.api_key", of what may be a secret in a callback's option: by its name, or by a user
    in an address. What is null, true, false or empty is none.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from secrets(f"{name}.{key}", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from secrets(name, inner)
    elif value is not None and not isinstance(value, bool) and value != "":
        words = [re.sub(r"[^a-z0-9]", "", word.lower()) for word in name.split(".")]
        named = any(_SECRET.search(word) and not _NO_SECRET.search(word) for word in words)
        if named or _USER.search(str(value)):
            yield name


class CallbackError(ValueError):
    """A callback that cannot be created."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CallbackChoice:
    """A callback's name and its keyword arguments."""

    name: str
    options: Mapping[str, Any]


def build(choice: CallbackChoice) -> tune.Callback:
    """The callback. Raises CallbackError where its package is not installed or an option is wrong."""
    module, name, package = KNOWN[choice.name]
    try:
        importlib.import_module(package)
        callback: tune.Callback = getattr(importlib.import_module(module), name)(**choice.options)
    except ImportError as error:
        raise CallbackError(f"callback {choice.name!r} needs the package {package}: pip install {package}") from error
    except (TypeError, ValueError) as error:
        raise CallbackError(f"callback {choice.name!r} cannot be created: {error}") from error
    return callback
