"""Names of sources of gradient with a surrogate: another model, on which an attack makes its examples.

The usual surrogate is the BP twin of the same seed: "transfer". Any other one is part of its source's name, such as
"transfer from usf (other seed)", so that lines, runs and panels that differ in it are apart wherever they are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from orchestrator.jobs import keys

#: The source that takes a surrogate other than the BP twin.
TRANSFER = "transfer"
_FROM, _OTHER_SEED = f"{TRANSFER} from ", " (other seed)"


class SurrogateName(NamedTuple):
    """What a source of gradient says of its surrogate."""

    rule: str
    #: JSON of the rule's parameters that are not the default.
    parameters: str
    #: Whether it is of another seed than the attacked model.
    other_seed: bool


#: The surrogate that "transfer" stands for.
TWIN = SurrogateName("bp", "{}", False)


def source_name(rule: str, parameters: Mapping[str, Any], other_seed: bool) -> str:
    """The source whose surrogate has this rule, with its parameters that are not the default.

    >>> source_name("usf", {"scale": "xavier"}, True)
    'transfer from usf {"scale":"xavier"} (other seed)'
    >>> source_name("bp", {}, False)
    'transfer'
    """
    if (rule, keys.canonical(parameters), other_seed) == TWIN:
        return TRANSFER
    return f"{_FROM}{rule}{f' {keys.canonical(parameters)}' if parameters else ''}{_OTHER_SEED * other_seed}"


def names_surrogate(gradient: str) -> bool:
    """Whether a source of gradient names its surrogate: the BP twin of the same seed is not named."""
    return gradient.startswith(_FROM)


def transfers(gradient: str) -> bool:
    """Whether images are made on a surrogate, be it the attacked model itself."""
    return gradient == TRANSFER or names_surrogate(gradient)


def surrogate_of(gradient: str) -> SurrogateName:
    """The surrogate of a transfer.

    >>> surrogate_of("transfer from usf (other seed)")
    SurrogateName(rule='usf', parameters='{}', other_seed=True)
    """
    if not names_surrogate(gradient):
        return TWIN
    named = gradient.removeprefix(_FROM).removesuffix(_OTHER_SEED)
    rule, _, parameters = named.partition(" ")
    return SurrogateName(rule, parameters or "{}", gradient.endswith(_OTHER_SEED))


def attacks_itself(gradient: str, rule: str, parameters: str) -> bool:
    """Whether the surrogate of a model of this rule is the model itself: a white-box attack. BP is its own twin.

    `parameters` is JSON, as in the columns of results.
    """
    return transfers(gradient) and surrogate_of(gradient) == (rule, parameters, False)
