"""What rules, attacks and gradients are called and where they stand, without importing what they do.

The registries need torch, whose import takes several times as long as a page. What ships is written down here, and a
test holds it against the registries; members of one's own are learnt from the registries, in the background.
"""

from __future__ import annotations

import threading

#: In the registries' order, each with its label.
_RULES = {"bp": "BP", "fa": "FA", "usf": "uSF", "frsf": "frSF", "brsf": "brSF"}
_ATTACKS = (
    *("none", "noise", "fgsm", "bim", "mim", "pgd", "apgd", "fab", "autoattack", "square", "hopskipjump", "boundary"),
    *("hag", "sdha", "hag-saat", "sdha-saat"),
)
_GRADIENTS = ("feedback", "exact", "transfer", "eot", "hybrid")
#: The k of mAP@k where a task's parameters name none.
DEFAULT_K = {"hashing": 5000}

_labels: dict[str, dict[str, str]] = {
    "rule": dict(_RULES),
    "attack": {name: name for name in _ATTACKS},
    "gradient": {name: name for name in _GRADIENTS},
}
_places = {family: {name: at for at, name in enumerate(known)} for family, known in _labels.items()}
_learning = threading.Lock()


def place(family: str, name: str) -> tuple[int, str]:
    """The order of a name of a family ("rule", "attack", "gradient"); unknown names come last, by themselves."""
    places = _places[family]
    return places.get(name, len(places)), name


def label(rule: str) -> str:
    """How figures print a rule; a name that nobody knows as it is."""
    return _labels["rule"].get(rule, rule)


def knows(family: str, name: str) -> bool:
    """Whether there is nothing to learn about the name. Attacks of a library, `library:NAME`, are in no registry."""
    return name in _places[family] or (family, name) == ("gradient", "none") or (family == "attack" and ":" in name)


def learn() -> None:
    """Ask the registries, which imports torch and the modules of SIGNSYM_EXTENSIONS. Raises ExtensionError."""
    from signsym_core.attacks import ATTACKS, GRADIENTS
    from signsym_core.rules import RULES

    with _learning:
        found = {
            "rule": {rule.name: rule.label for rule in RULES},
            "attack": {name: name for name in ATTACKS.names},
            "gradient": {name: name for name in GRADIENTS},
        }
        for family, labels in found.items():
            _labels[family] = labels
            _places[family] = {name: at for at, name in enumerate(labels)}
