"""The models of a store: weights, codes and a record in a folder for each job, and checkpoints of unfinished ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import safetensors
from safetensors import SafetensorError

from orchestrator.store import records
from orchestrator.store.files import Files
from orchestrator.store.progress import Progress, silent
from orchestrator.store.reasons import FOLDER, printable, reason_of
from signsym_core import seal
from signsym_core.seal import DamagedError

if TYPE_CHECKING:
    # Imported where tensors are read or written, so that a sweep's driver does not load torch.
    from torch import Tensor

T = TypeVar("T")
#: Files below a model's folder.
_MODEL, _CODES, _RECORD, _PROGRESS = "model.safetensors", "codes.safetensors", "record.json", "progress.safetensors"


class Models(Files):
    """The files below models/KEY of each pre-training or fine-tune KEY."""

    def save_model(self, key: str, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Write a finished model. Its record is written last: it marks the model as done."""
        self._save_tensors(key, _MODEL, tensors)
        self.write(f"models/{key}/{_RECORD}", records.written(record))

    def load_model(self, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """A finished model's tensors and record. Raises DamagedError where a file is not as it was saved."""
        record = self.record(key)
        return self._load_tensors(key, _MODEL)[0], record

    def record(self, key: str) -> dict[str, Any]:
        """The record of a finished model. Raises DamagedError for a file that is no record of this model."""
        path = f"models/{key}/{_RECORD}"
        try:
            return records.read(self.read_sealed(path), key)
        except ValueError as error:
            raise DamagedError(f"{path}: {error}") from error

    def save_codes(self, key: str, codes: dict[str, Tensor]) -> None:
        """Write the packed codes of a model's database and training images beside the model, before its record."""
        self._save_tensors(key, _CODES, codes)

    def load_codes(self, key: str) -> dict[str, Tensor]:
        """The codes that `save_codes` wrote. Raises DamagedError where the file is not as it was saved."""
        return self._load_tensors(key, _CODES)[0]

    def model_folders(self) -> dict[str, set[str]]:
        """The names of the files of each key below models/. Other entries are named in `skipped`."""
        folders: dict[str, set[str]] = {}
        for entry in self.entries("models", deep=True):
            key, _, name = entry.name.partition("/")
            if entry.reason == FOLDER and not name:
                folders.setdefault(key, set())
            elif name and not entry.reason and entry.name.isprintable():
                folders.setdefault(key, set()).add(name)
            elif not name.startswith(".") and not key.startswith("."):
                self.skipped[printable(f"models/{entry.name}")] = entry.reason or "it belongs to no model"
        return folders

    def check_model(self, key: str, codes: bool = False) -> bool:
        """Whether a finished model's weights are as they were saved, and its codes, which may be missing unless `codes`
        requires them. A file that is not is named in `skipped`.
        """
        for name in (_MODEL, _CODES):
            path = f"models/{key}/{name}"
            try:
                if name == _MODEL or codes or self.exists([path]):
                    self._loaded(key, name, safetensors.deserialize)
            except FileNotFoundError:
                self.skipped[path] = "missing: its model has a record and not this file"
                return False
            except (OSError, ValueError) as error:
                self.skipped[path] = reason_of(error).removeprefix(f"{path}: ")
                return False
        return True

    def models(self, progress: Progress = silent) -> tuple[dict[str, dict[str, Any]], set[str]]:
        """The readable records, by key, and the keys of the models that are done: those that also have weights.

        A record that cannot be read is named in `skipped`. `progress` is told the models that were looked at.
        """
        model_records, folders = {}, self.model_folders()
        for number, (key, names) in enumerate(folders.items()):
            progress("models looked at", number, len(folders))
            if _RECORD in names:
                try:
                    model_records[key] = self.record(key)
                except FileNotFoundError:
                    continue
                except (ValueError, OSError) as error:
                    self.skipped[f"models/{key}/{_RECORD}"] = reason_of(error)
        return model_records, {key for key in model_records if _MODEL in folders[key]}

    def done_models(self) -> set[str]:
        """Keys of the finished pre-training and fine-tune jobs."""
        return self.models()[1]

    def save_progress(self, key: str, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Replace the checkpoint of an unfinished model."""
        self._save_tensors(key, _PROGRESS, tensors, state=json.dumps(state))

    def load_progress(self, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last checkpoint of an unfinished model; None where there is none, or a damaged one.

        A damaged checkpoint costs its epochs again and changes no number; it is named in `skipped`.
        """
        try:
            tensors, metadata = self._load_tensors(key, _PROGRESS)
            state: dict[str, Any] = records.parsed(metadata["state"].encode())
            kept = {"epoch": int(state["epoch"]), "history": list(state["history"])}
            return tensors, kept | ({"alignment": list(state["alignment"])} if "alignment" in state else {})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.skipped[f"models/{key}/{_PROGRESS}"] = reason_of(error)
            return None

    def drop_progress(self, key: str) -> None:
        """Remove the checkpoint of a model that is finished."""
        self.remove(f"models/{key}/{_PROGRESS}")

    def _save_tensors(self, key: str, name: str, tensors: dict[str, Tensor], **metadata: str) -> None:
        from safetensors.torch import save

        # The job's key, since the weights of one model would fit another.
        metadata |= {"job": key, seal.KEY: seal.BLANK}
        self.write(f"models/{key}/{name}", seal.sealed(save(tensors, metadata=metadata)))

    def _load_tensors(self, key: str, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        from safetensors.torch import load

        return self._loaded(key, name, load)

    def _loaded(self, key: str, name: str, load: Callable[[bytes], T]) -> tuple[T, dict[str, str]]:
        """What a function of safetensors makes of a model's file, and the file's metadata."""
        path = f"models/{key}/{name}"
        data = self.read_sealed(path)
        try:
            tensors, metadata = load(data), _metadata(data)
        except (SafetensorError, ValueError, TypeError, AttributeError) as error:
            raise DamagedError(f"{path}: {reason_of(error)}") from error
        if metadata.get("job", key) != key:
            raise DamagedError(f"{path}: it belongs to another job, {metadata['job'][:64]}")
        return tensors, metadata


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file."""
    header = records.parsed(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata: dict[str, str] = header.get("__metadata__") or {}
    return metadata
