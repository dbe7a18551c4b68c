"""A model's return value as float outputs [n, outputs], with errors for anything else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class NonFiniteOutputError(ValueError):
    """Outputs have NaN or infinity: argmax treats NaN as the largest, so they would be scored as a class."""


def outputs_of(model: nn.Module, images: Tensor, who: str = "the model") -> Tensor:
    """The outputs of `model` for `images` [n, ...]: float [n, outputs], float32 where the model computes in fewer bits.

    A model may return a tensor, an object with a tensor `logits`, or a mapping with the key "logits". Raises
    ValueError for anything else, and for images of another type or on another device than the model's parameters;
    errors call the model `who`. Does not wait for the device, so outputs are not checked to be finite.
    """
    try:
        # A model may change its input in place, as `x.sub_(mean)` does: these images are asked for again.
        returned = model(images.clone())
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
        if parameter is None or (parameter.dtype, parameter.device) == (images.dtype, images.device):
            raise
        raise ValueError(
            f"{who} cannot take these images: they are {images.dtype} on {images.device}, its parameters "
            f"{parameter.dtype} on {parameter.device}; bring one to the other with .to(...)"
        ) from error
    return as_outputs(returned, len(images), who)


def as_outputs(returned: object, count: int, who: str = "the model") -> Tensor:
    """The outputs [count, outputs] in what a model returned: see `outputs_of`."""
    outputs = logits_in(returned)
    expected = f"{who} must give float logits of shape [{count}, classes]"
    if not isinstance(outputs, Tensor):
        raise ValueError(f"{expected}, itself, as .logits or under the key 'logits'; got {_kind(returned)}")
    if outputs.ndim != 2 or len(outputs) != count or not outputs.is_floating_point():
        raise ValueError(f"{expected}, got {_kind(outputs)}")
    return outputs.float() if outputs.dtype.itemsize < 4 else outputs


def logits_in(returned: object) -> object:
    """What is in the place of the logits in what a model returned."""
    if isinstance(returned, Mapping):
        return returned.get("logits")
    return returned if isinstance(returned, Tensor) else getattr(returned, "logits", None)


def refuse_non_finite(outputs: Tensor, who: str = "the model", what: str = "images") -> None:
    """Raise NonFiniteOutputError unless all outputs [n, outputs], of these images, are finite. Waits for the device."""
    broken = (~outputs.isfinite()).any(dim=1)
    if broken.any():
        places = broken.nonzero().flatten().tolist()
        raise NonFiniteOutputError(
            f"{broken_for(who, len(places), len(outputs), what)} (numbers {listed(places)}); {ADVICE}"
        )


def broken_for(who: str, broken: int, count: int, what: str) -> str:
    """The beginning of the message about outputs that are not finite."""
    return f"the outputs of {who} are not finite (NaN or infinity) for {broken} of {count} {what}"


#: What to do about outputs that are not finite.
ADVICE = (
    "nothing is scored from them. A class that can never come needs a large negative number in place of -infinity, or "
    "no output at all"
)


def listed(numbers: list[int]) -> str:
    """The first ten of `numbers`, separated by commas."""
    return ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")


def _kind(returned: object) -> str:
    """A description for an error message: the type, with the types and shapes of the tensors in it."""
    if isinstance(returned, Tensor):
        return f"{list(returned.shape)} of {returned.dtype}"
    name = type(returned).__name__
    if isinstance(returned, Mapping):
        return f"a {name} with the keys {_names(returned)}"
    if dataclasses.is_dataclass(returned):
        return f"a {name} with the fields {_names([f.name for f in dataclasses.fields(returned)])}"
    if isinstance(returned, (tuple, list)):
        return f"a {name} of {', '.join(_kind(item) for item in returned[:5]) or 'nothing'}"
    return f"{returned!r:.60} ({name})"


def _names(names: Iterable[object]) -> str:
    return ", ".join(repr(name) for name in names) or "none"
