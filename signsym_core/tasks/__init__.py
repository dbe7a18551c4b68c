"""Tasks: what a model is fine-tuned for and how it is scored."""

from signsym_core.registry import Registry
from signsym_core.tasks.base import Task as Task
from signsym_core.tasks.classification import Classification

#: Every task.
TASKS: Registry[Task] = Registry("task", [Classification])
