"""Tasks: what a model is fine-tuned for and how it is scored."""

from signsym_core.registry import Registry
from signsym_core.tasks.base import Objective as Objective
from signsym_core.tasks.base import Task as Task
from signsym_core.tasks.classification import Classification
from signsym_core.tasks.hashing import Hashing

#: Every task.
TASKS: Registry[Task] = Registry("task", [Classification, Hashing])
