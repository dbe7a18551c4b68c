"""Pre-trained weights: torchvision's published ones by name, or a local file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import models

from signsym_core.backbones.base import Backbone, Model


class WeightsError(ValueError):
    """Weights that cannot be found, or that are not those of the network."""


def load_published(model: Model, backbone: Backbone, name: str) -> None:
    """Load torchvision's weights `name` (such as "IMAGENET1K_V1") into the body of `model`; its head stays fresh.

    torchvision downloads the file once into torch's cache. Raises WeightsError where the backbone has no such
    weights, or where the file is neither there nor to be had, with the place to put it.
    """
    if backbone.published is None:
        raise WeightsError(f"backbone {backbone.name!r} has no published weights; use a local file or pre-training")
    known = list(models.get_weight(f"{backbone.published}.DEFAULT").__class__.__members__)
    if name not in known:
        raise WeightsError(f"backbone {backbone.name!r} has no weights {name!r}; torchvision has: {', '.join(known)}")
    weights: Any = models.get_weight(f"{backbone.published}.{name}")
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise WeightsError(
            f"weights {name!r} of {backbone.name!r} could not be downloaded ({error}). Put the file "
            f"{place.name} (torchvision's {weights}) at {place}, or name a local file as weights"
        ) from error
    load_body(model, state, f"torchvision's {weights}")


def load_file(model: Model, path: Path) -> None:
    """Load a state dict from a .safetensors or a torch file (read without unpickling code) into the body of `model`.

    Names may be those of the network or of a whole model of ours; a head in the file is left out. Raises
    WeightsError for a missing file, one that holds something else, or weights of another network.
    """
    if not path.is_file():
        raise WeightsError(f"weights file {path} does not exist")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file as load_safetensors

            state: Any = load_safetensors(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"weights file {path} cannot be read as a state dict: {error}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"weights file {path} must hold a state dict (names to tensors), got {type(state).__name__}")
    load_body(model, state, str(path))


def load_body(model: Model, state: dict[str, Tensor], source: str) -> None:
    """Load `state` into the network of `model`, all but the head; every other tensor must be there and fit."""
    state = {name.removeprefix("network."): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if not name.endswith("_extra_state")}
    head = model.head + "."
    own = model.network.state_dict()
    needed = {name for name in own if not name.startswith(head) and not name.endswith("_extra_state")}
    body = {name: tensor for name, tensor in state.items() if not name.startswith(head)}
    # Files older than batch normalisation's counter of batches lack it; it plays no part in the network's outputs.
    missing = {name for name in needed - body.keys() if not name.endswith("num_batches_tracked")}
    problems = [f"missing {name}" for name in sorted(missing)]
    problems += [f"unknown {name}" for name in sorted(body.keys() - needed)]
    problems += [
        f"{name} has shape {list(body[name].shape)} instead of {list(own[name].shape)}"
        for name in sorted(needed & body.keys())
        if body[name].shape != own[name].shape
    ]
    if problems:
        raise WeightsError(f"{source} does not fit the network: {'; '.join(problems[:5])} ({len(problems)} problems)")
    model.network.load_state_dict(body, strict=False)
