"""Stands in for torch and the data sets in workers whose jobs compute nothing: the real ones take seconds each."""

from __future__ import annotations

import sys
import types


class OutOfMemoryError(RuntimeError):
    """As torch's."""


class cuda:
    """No GPU, whatever the machine has: those of these tests are declared."""

    is_available = staticmethod(lambda: False)


def set_num_threads(number: int) -> None:
    """Nothing computes here."""


datasets = types.ModuleType("signsym_core.datasets")
datasets.DataWarning = type("DataWarning", (UserWarning,), {})
sys.modules[datasets.__name__] = datasets
