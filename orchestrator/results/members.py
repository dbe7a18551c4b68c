"""Labels and order of rules, attacks, gradients and kinds of corruption, without importing their code.

The registries need torch, whose import takes several times as long as a page. What ships with signsym is read from its
source text; user-defined members are read from the registries, in the background.
"""

from __future__ import annotations

import os
import sys
import threading

from orchestrator.jobs.surrogates import TRANSFER, names_surrogate
from orchestrator.results.declared import constant, declared

#: The k of mAP@k of each task whose parameters name none.
DEFAULT_K = {str(task["name"]): task["k"] for task in declared("tasks/__init__.py", "TASKS") if "k" in task}

#: Backbones whose units spike, so that what is stored as their exact gradient is that of a surrogate.
SPIKING = frozenset(str(kind["name"]) for kind in declared("backbones/__init__.py", "BACKBONES") if kind.get("spiking"))

_attacks = list(declared("attacks/__init__.py", "ATTACKS"))
_rules = list(declared("rules/__init__.py", "SHIPPED"))
_labels: dict[str, dict[str, str]] = {
    "rule": {str(rule["name"]): str(rule.get("label", "")) for rule in _rules},
    "attack": {str(attack["name"]): str(attack["name"]) for attack in _attacks},
    "gradient": {str(kind["name"]): str(kind["name"]) for kind in declared("attacks/gradients.py", "GRADIENTS")},
    "corruption": {kind: kind for name in ("STANDARD", "EXTRA") for kind in constant("datasets/corruptions.py", name)},
}
_stepping = {str(rule["name"]) for rule in _rules if "StepRule" in str(rule["extends"])}
_measuring = {str(attack["name"]) for attack in _attacks if attack.get("measuring")}
_certifying = {str(attack["name"]) for attack in _attacks if attack.get("certifying")}
_defaults = {str(attack["name"]): attack for attack in _attacks}
_ranks = {family: {name: rank for rank, name in enumerate(known)} for family, known in _labels.items()}
_learning = threading.Lock()


def rank(family: str, name: str) -> tuple[int, str]:
    """The order of a name of a family ("rule", "attack", "gradient", "corruption"); others come last, by alphabet."""
    ranks = _ranks[family]
    return ranks.get(_registered(family, name), len(ranks)), name


def label(rule: str) -> str:
    """How figures print a rule; an unknown name is printed unchanged."""
    return _labels["rule"].get(rule, rule)


def stepping(rule: str) -> bool:
    """Whether a rule trains by a step of its own and has no backward pass: its feedback is the exact gradient."""
    return rule in _stepping


def measuring(attack: str) -> bool:
    """Whether an attack is run for what it measures alone: its outcomes are no evidence of robustness."""
    return attack in _measuring


def certifying(attack: str) -> bool:
    """Whether what an attack leaves robust is certified, of a smoothed model, against every attack."""
    return attack in _certifying


def default(attack: str, parameter: str) -> object:
    """The default of a parameter of an attack that ships with signsym; None where its class does not write it down."""
    return _defaults.get(attack, {}).get(parameter)


def knows(family: str, name: str) -> bool:
    """Whether the registries can add nothing to the name. Attacks of a library, `library:NAME`, are in no registry."""
    known = _registered(family, name) in _ranks[family]
    return known or (family, name) == ("gradient", "none") or (family == "attack" and ":" in name)


def _registered(family: str, name: str) -> str:
    """The name in a registry: a source of gradient that names its surrogate stands with those that do not."""
    return TRANSFER if family == "gradient" and names_surrogate(name) else name


def learn() -> bool:
    """Read the registries, which imports torch and the modules of SIGNSYM_EXTENSIONS. Raises ExtensionError.

    False, and nothing is imported, where they say no more than their source: without such modules, in a process that
    does not use the registries.
    """
    if not os.environ.get("SIGNSYM_EXTENSIONS") and "signsym_core.rules" not in sys.modules:
        return False
    from signsym_core.attacks import ATTACKS, GRADIENTS
    from signsym_core.rules import RULES
    from signsym_core.rules.whole import StepRule

    with _learning:
        registered = {
            "rule": {rule.name: rule.label for rule in RULES},
            "attack": {name: name for name in ATTACKS.names},
            "gradient": {name: name for name in GRADIENTS},
        }
        _stepping.update(rule.name for rule in RULES if issubclass(rule, StepRule))
        _measuring.update(attack.name for attack in ATTACKS if attack.measuring)
        _certifying.update(attack.name for attack in ATTACKS if attack.certifying)
        for family, labels in registered.items():
            _labels[family] = labels
            _ranks[family] = {name: rank for rank, name in enumerate(labels)}
    return True
