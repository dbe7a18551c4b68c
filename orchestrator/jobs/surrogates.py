"""Names of sources of gradient with a surrogate: another model, on which an attack makes its examples.

The usual surrogate is the BP twin of the same seed: "transfer". Any other one is part of its source's name, such as
"transfer from usf (other seed)", so that lines, runs and panels that differ in it are apart wherever they are compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.jobs import keys

#: The source that takes a surrogate other than the BP twin.
TRANSFER = "transfer"
_FROM, _OTHER_SEED = f"{TRANSFER} from ", " (other seed)"


def source_name(rule: str, parameters: Mapping[str, Any], other_seed: bool) -> str:
    """The source whose surrogate has this rule, with its parameters that are not the default.

    >>> source_name("usf", {"scale": "xavier"}, True)
    'transfer from usf(scale="xavier") (other seed)'
    >>> source_name("bp", {}, False)
    'transfer'
    """
    if rule == "bp" and not parameters and not other_seed:
        return TRANSFER
    inner = ", ".join(f"{name}={keys.canonical(value)}" for name, value in sorted(parameters.items()))
    return f"{_FROM}{rule}{f'({inner})' if inner else ''}{_OTHER_SEED * other_seed}"


def names_surrogate(gradient: str) -> bool:
    """Whether a source of gradient names its surrogate: the BP twin of the same seed is not named."""
    return gradient.startswith(_FROM)


def surrogate_of(gradient: str) -> tuple[str, bool]:
    """The rule of the surrogate that a source names, with its parameters, and whether it is of another seed.

    >>> surrogate_of("transfer from usf (other seed)")
    ('usf', True)
    """
    named = gradient.removeprefix(_FROM)
    return named.removesuffix(_OTHER_SEED), named.endswith(_OTHER_SEED)


def attacks_itself(gradient: str, rule: str, parameters: str) -> bool:
    """Whether the named surrogate of a model of this rule is the model itself: a white-box attack.

    `parameters` is JSON, as in the columns of results; what is none names no rule of ours.
    """
    if not names_surrogate(gradient):
        return False
    try:
        values = json.loads(parameters)
    except ValueError:
        return False
    return isinstance(values, dict) and gradient == source_name(rule, values, other_seed=False)
