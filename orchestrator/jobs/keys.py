"""Keys: the sha256 of the canonical JSON of everything that decides a job's outcome.

What only decides how a job is run (resources, retries, priority, the size of a micro-batch, the data's folder) stays
out, so that changing it recomputes nothing. Every value is resolved before it is hashed: a changed default is another
experiment. A field that was added later states its neutral value, "as before the field existed", and is left out while
it has that value: see `signsym_core.registry.neutral`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from signsym_core.registry import Member, identity

if TYPE_CHECKING:
    # Attacks need torch, and a process that only reads keys does not.
    from signsym_core.attacks import Attack

#: Version of what each kind of job computes. Raised when the same description gives other numbers.
SEMANTICS = {"pretrain": 1, "finetune": 1, "attack": 1}
#: By how much the version of single attacks is above that of their kind: their numbers moved, and those of the attacks
#: that run them, which follow by `Attack.parts`.
RAISED = {"boundary": 1}
#: The same on data sets whose images have several labels.
RAISED_SEVERAL = {"cross-entropy": 1, "dlr": 1}
#: RAISED when trainings came that depend on an attack, whose keys hold what was raised since, and when results got a
#: column for it. SEMANTICS were all 1.
_RAISED_BEFORE = {"boundary": 1}

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; floats in their shortest exact form; NaN and infinity are refused."""
    return _CANONICAL.encode(value)


def key(value: Any) -> str:
    """The sha256 of `canonical(value)`, in hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def attack_semantics(attack: Attack, several: bool = False) -> int:
    """The version of what an attack computes, on images with `several` labels each: it rises with those of the attacks
    that it runs.
    """
    return SEMANTICS["attack"] + _raised(attack, RAISED) + several * _raised(attack, RAISED_SEVERAL)


def training_semantics(kind: str, against: Attack | None, several: bool = False) -> int:
    """The version of what trainings of a kind compute: it rises with that of the attack that they train against."""
    if against is None:
        return SEMANTICS[kind]
    raised = _raised(against, RAISED) - _raised(against, _RAISED_BEFORE)
    return SEMANTICS[kind] + raised + several * _raised(against, RAISED_SEVERAL)


def revision(attack: Attack, spec: Mapping[str, Any], model: Mapping[str, Any]) -> int:
    """How often the numbers of an attack, and of the training of its model, were changed since results say so: from
    the specs of their jobs.
    """
    return int(spec["semantics"] + model["semantics"] - 2 - _raised(attack, _RAISED_BEFORE))


def _raised(attack: Attack, by_name: Mapping[str, int]) -> int:
    return sum(by_name.get(name, 0) for name in {attack.name, *attack.parts()})


def described(member: Member) -> dict[str, Any]:
    """A member of a registry as keys and jobs store it: its name, and each resolved parameter that is not neutral."""
    return {"name": member.name, "parameters": identity(member)}


def work(job: str, spec: Mapping[str, Any]) -> str:
    """What a job does, whichever of an attack's cells are left: for a training the key of the job."""
    return key({name: value for name, value in spec.items() if name != "points"}) if "points" in spec else job


def cells(spec: Mapping[str, Any]) -> Iterator[tuple[str, str, float, str]]:
    """The cells of an attack job's spec: each cell's key, gradient, epsilon and the epsilon's label."""
    find = cell_keys(canonical({name: value for name, value in spec.items() if name != "points"}))
    for gradient, epsilon, label in spec["points"]:
        yield find(gradient, epsilon), gradient, epsilon, label


def cell_keys(base: str) -> Callable[[str, float], str]:
    """From gradient and epsilon to a cell's key; `base`, hashed once, is the canonical JSON of attack and model."""
    base_digest = hashlib.sha256(f"{base}|".encode())

    def key(gradient: str, epsilon: float) -> str:
        digest = base_digest.copy()
        digest.update(f"{gradient}|{epsilon!r}".encode())
        return digest.hexdigest()

    return key
