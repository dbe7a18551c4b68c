"""Pre-trained weights: torchvision's published ones by name, or a local file."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from signsym_core import seal
from signsym_core.backbones.base import Backbone, Model
from signsym_core.rules.convert import converted
from signsym_core.rules.held import PLACE
from signsym_core.vision import torchvision

#: What training scripts call the state dict in a checkpoint that has more, such as the optimiser's state.
_ENTRIES = ("state_dict", "model_state_dict", "model")


class WeightsError(ValueError):
    """Weights are missing or do not fit the network."""


def load_published(model: Model, backbone: Backbone, name: str) -> None:
    """Load torchvision's weights `name` (such as "IMAGENET1K_V1") into the body of `model`; its head is unchanged.

    torchvision downloads the file once into torch's cache. Raises WeightsError where the backbone has no such
    weights, or where the file is missing and cannot be downloaded, with the path where it belongs.
    """
    if backbone.published is None:
        raise WeightsError(f"backbone {backbone.name!r} has no published weights; use a local file or pre-training")
    models = torchvision("models")
    known = list(models.get_weight(f"{backbone.published}.DEFAULT").__class__.__members__)
    if name not in known:
        raise WeightsError(f"backbone {backbone.name!r} has no weights {name!r}; torchvision has: {', '.join(known)}")
    weights: Any = models.get_weight(f"{backbone.published}.{name}")
    place = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    refuse_other_bytes(place)
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise WeightsError(
            f"weights {name!r} of {backbone.name!r} could not be downloaded ({error}). Put the file "
            f"{place.name} (torchvision's {weights}) at {place}, or name a local file as weights"
        ) from error
    load_body(model, state, f"torchvision's {weights}")


def refuse_other_bytes(file: Path) -> None:
    """Raise WeightsError where a file that torchvision downloaded does not have the digest in its name.

    torchvision itself checks the digest only when it downloads the file.
    """
    stated = re.search(r"-([0-9a-f]{8,})\.[a-z]+$", file.name)
    if stated is None or not file.is_file():
        return
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if not digest.startswith(stated[1]):
        raise WeightsError(
            f"weights file {file} is damaged or another one: expected a sha256 that begins with {stated[1]}, as its "
            f"name says, got {digest}. Delete it, and it is fetched again"
        )


def load_file(model: Model, path: Path, sha256: str | None = None) -> None:
    """Load a state dict from a .safetensors or a torch file (read without unpickling code) into the body of `model`.

    Names are those of the network, with or without what a wrapper puts before all of them, such as DataParallel's
    "module."; in a checkpoint the state dict is the entry `state_dict`, `model_state_dict` or `model`. A head in the
    file is ignored. Raises WeightsError for a missing file, one without a state dict, weights of another network,
    numbers of another kind (int8, bool or complex instead of floats), entries that are not finite, or a digest that is
    not `sha256`.
    """
    load_body(model, read_state(path, sha256), str(path))


def load_whole_file(model: Model, path: Path) -> None:
    """`load_file` including the head: the file is a complete model.

    A converted model also gets the state of its feedback, where the file has it. Raises WeightsError also where the
    head has another number of outputs, and ValueError for the feedback of another rule.
    """
    load_whole(model, read_state(path), str(path), feedback=bool(converted(model)))


def read_state(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """The state dict of a .safetensors or a torch file, read without unpickling code. Raises WeightsError.

    With `sha256` the bytes that are loaded must have that digest, in hexadecimal.
    """
    if not path.is_file():
        raise WeightsError(f"weights file {path} does not exist")
    data = path.read_bytes()
    if sha256 is not None and (digest := hashlib.sha256(data).hexdigest()) != sha256:
        raise WeightsError(
            f"weights file {path} was replaced since the sweep was planned: expected sha256 {sha256}, got {digest}. "
            f"Put the file back, or start the sweep again, which plans with the new one"
        )
    try:
        seal.check(data)
    except seal.DamagedError as error:
        raise WeightsError(f"weights file {path} is {error}. Copy or export it anew") from error
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            state: Any = load(data)
        else:
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"weights file {path} cannot be read as a state dict: {_reason(data, error)}") from error
    if isinstance(state, dict):
        state = next((state[name] for name in _ENTRIES if isinstance(state.get(name), dict)), state)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        got = f"entries {', '.join(map(str, list(state)[:8]))}" if isinstance(state, dict) else type(state).__name__
        raise WeightsError(
            f"weights file {path} must hold a state dict (names to tensors), by itself or as one of the entries "
            f"{', '.join(_ENTRIES)}; got {got}"
        )
    return state


def _reason(data: bytes, error: Exception) -> str:
    """Why a file could not be read: what in it is no tensor, or the first line of the error."""
    if not data:
        return "it is empty"
    if refused := re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", str(error)):
        return f"it holds {refused[1]}, and code is never loaded; save model.state_dict() alone"
    return f"{type(error).__name__}: {error}".splitlines()[0]


def load_whole(model: Model, state: dict[str, Tensor], source: str, *, feedback: bool = False) -> None:
    """Load `state` into the network of `model`, head included, with the state of its feedback where `feedback`."""
    network_state = _network_state(model, state, extra=feedback)
    _refuse_other_head(model, network_state, source)
    _refuse_misfit(model, network_state, "", source)
    model.network.load_state_dict(network_state, strict=False)


def load_body(model: Model, state: dict[str, Tensor], source: str, *, feedback: bool = False) -> None:
    """`load_whole` without the head; no other tensor may be missing or misfit."""
    head = model.head + "."
    body = {
        name: tensor
        for name, tensor in _network_state(model, state, extra=feedback).items()
        if not name.startswith(head)
    }
    _refuse_misfit(model, body, head, source)
    model.network.load_state_dict(body, strict=False)


def _network_state(model: Model, state: dict[str, Tensor], extra: bool) -> dict[str, Tensor]:
    """The tensors by their names in the network, with the records of converted layers where `extra`."""
    children = dict(model.network.named_children())
    # What a wrapper puts before every name, and what follows has to fit exactly.
    while len(first := {name.partition(".")[0] for name in state}) == 1 and not first & children.keys():
        if not all("." in name for name in state):
            break
        state = {name.partition(".")[2]: tensor for name, tensor in state.items()}
    named = {name.removeprefix("network."): tensor for name, tensor in state.items()}
    # It plays no part in the outputs, and a state dict in half precision has it in that type.
    named = {n: t for n, t in named.items() if not (n.endswith("num_batches_tracked") and t.is_floating_point())}
    if extra:
        return named
    held = _held(named)
    return {name: tensor for name, tensor in named.items() if not name.endswith("_extra_state") and name not in held}


def _held(state: Mapping[str, object]) -> set[str]:
    """Names of the tensors in a state dict that learned rules hold: those below a layer that has a record."""
    places = {name: name.rpartition(f".{PLACE}.")[0] for name in state}
    return {name for name, layer in places.items() if layer and f"{layer}._extra_state" in state}


def _refuse_other_head(model: Model, state: dict[str, Tensor], source: str) -> None:
    """Raise WeightsError where the head of a whole model has another number of outputs."""
    name = f"{model.head}.weight"
    if name not in state or state[name].shape[1:] != (expected := model.network.state_dict()[name]).shape[1:]:
        return
    if len(state[name]) != len(expected):
        raise WeightsError(
            f"{source} does not fit the network: {name} has {len(state[name])} outputs where the data set has "
            f"{len(expected)} classes; the data set's parameter 'classes' chooses and orders them"
        )


def _refuse_misfit(model: Model, state: dict[str, Tensor], head: str, source: str) -> None:
    """Raise WeightsError unless `state` has the tensors of the network, but those of `head`: shapes, kinds, finite."""
    network_state = model.network.state_dict()
    # Without a record of their feedback, layers keep the one that they have.
    left_out = set() if _held(state) else _held(network_state)
    expected = {n: t for n, t in network_state.items() if not n.endswith("_extra_state") and n not in left_out}
    loaded = {name: tensor for name, tensor in state.items() if not name.endswith("_extra_state")}
    needed = {name for name in expected if not head or not name.startswith(head)}
    # Files older than batch normalisation's counter of batches lack it; it plays no part in the network's outputs.
    missing = {name for name in needed - loaded.keys() if not name.endswith("num_batches_tracked")}
    problems = [f"missing {name}" for name in sorted(missing)]
    problems += [f"unknown {name}" for name in sorted(loaded.keys() - needed)]
    problems += [
        f"{name} has shape {list(loaded[name].shape)} instead of {list(expected[name].shape)}"
        for name in sorted(needed & loaded.keys())
        if loaded[name].shape != expected[name].shape
    ]
    problems += [
        f"{name} has {loaded[name].dtype} instead of {_kind(expected[name])}"
        for name in sorted(needed & loaded.keys())
        if _kind(loaded[name]) != _kind(expected[name])
    ]
    problems += [
        f"{name} has {broken} of {loaded[name].numel()} entries that are not finite as {expected[name].dtype}"
        for name in sorted(needed & loaded.keys())
        if _kind(loaded[name]) == "floats"
        and (broken := int((~torch.isfinite(loaded[name].to(expected[name].dtype))).sum()))
    ]
    if loaded and 2 * len(loaded.keys() & needed) < len(needed):
        in_file, in_network = (", ".join([*names][:3]) for names in (loaded, expected))
        raise WeightsError(
            f"{source} does not fit the network, which may be another one: it holds {in_file}, ... where "
            f"{in_network}, ... are expected"
        )
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise WeightsError(f"{source} does not fit the network: {'; '.join(problems[:5])}{more}")


def _kind(tensor: Tensor) -> str:
    """The kind of numbers in a tensor; loading one kind as another would silently round, scale or drop values."""
    if tensor.is_floating_point():
        # Types of 8 bits and less represent numbers only together with a scale.
        return "floats" if tensor.element_size() > 1 else str(tensor.dtype)
    return "whole numbers" if tensor.dtype in (torch.int16, torch.int32, torch.int64) else str(tensor.dtype)
