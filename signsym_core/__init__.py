"""Sign-symmetry learning rules, fine-tuning and robustness measurement, on torch alone.

Public names are imported on first use: statistics and checks need no torch, whose import takes longer than the
computation of a page or a table that uses them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from signsym_core.attacks import ATTACKS as ATTACKS
    from signsym_core.attacks import GRADIENTS as GRADIENTS
    from signsym_core.auditing.audit import audit as audit
    from signsym_core.backbones import BACKBONES as BACKBONES
    from signsym_core.datasets import DATASETS as DATASETS
    from signsym_core.evaluation.attack import attack as attack
    from signsym_core.evaluation.outcome import Outcome as Outcome
    from signsym_core.retrieval.codes import Codes as Codes
    from signsym_core.retrieval.codes import Gallery as Gallery
    from signsym_core.retrieval.codes import encode as encode
    from signsym_core.retrieval.ranking import mean_average_precision as mean_average_precision
    from signsym_core.rules import RULES as RULES
    from signsym_core.rules.convert import convert as convert
    from signsym_core.rules.convert import exact_gradient as exact_gradient
    from signsym_core.rules.convert import feedback as feedback
    from signsym_core.rules.convert import revert as revert
    from signsym_core.tasks import TASKS as TASKS
    from signsym_core.training.finetune import fine_tune as fine_tune
    from signsym_core.training.settings import FineTune as FineTune

__version__ = "0.1.0"

#: The module of each public name.
_HOMES = {
    **dict.fromkeys(("ATTACKS", "GRADIENTS"), "attacks"),
    **dict.fromkeys(("Codes", "Gallery", "encode"), "retrieval.codes"),
    **dict.fromkeys(("convert", "exact_gradient", "feedback", "revert"), "rules.convert"),
    **{
        "attack": "evaluation.attack",
        "audit": "auditing.audit",
        "fine_tune": "training.finetune",
        "FineTune": "training.settings",
        "Outcome": "evaluation.outcome",
        "mean_average_precision": "retrieval.ranking",
        "BACKBONES": "backbones",
        "DATASETS": "datasets",
        "RULES": "rules",
        "TASKS": "tasks",
    },
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    # The next access finds the name without this function.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
