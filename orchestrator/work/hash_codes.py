"""Codes of a model's database and training images, stored beside the model: computed once, used by all attacks."""

from __future__ import annotations

from torch import Tensor

import signsym_core as ss
from orchestrator.store.store import Store
from signsym_core.backbones import Model
from signsym_core.datasets import Data, DataSource
from signsym_core.retrieval.codes import pack, unpack


def encoded(model: Model, data: Data, source: DataSource) -> dict[str, Tensor]:
    """The packed codes uint8 [n, ceil(bits / 8)] of the training images, and of the database where it differs."""
    splits = {"train": data.train} | ({} if data.database is None else {"database": data.database})
    return {name: pack(ss.encode(model, split, source).signs).cpu() for name, split in splits.items()}


def gallery(
    store: Store, data: Data, bits: int, model: str, crafting: str, searched_by: tuple[Model, DataSource] | None = None
) -> ss.Gallery:
    """The database as `model` encodes it, and the training images as the model `crafting` does: keys of fine-tunes.

    With `searched_by`, the model and its data set, the database has real-valued outputs too, which no store keeps.
    """
    device = data.train.labels.device
    database, name = (data.train, "train") if data.database is None else (data.database, "database")
    searched, known = store.load_codes(model)[name], store.load_codes(crafting)["train"]
    features = None if searched_by is None else ss.encode(searched_by[0], database, searched_by[1]).features
    return ss.Gallery(
        database=ss.Codes(signs=unpack(searched.to(device), bits), labels=database.labels, features=features),
        train=ss.Codes(signs=unpack(known.to(device), bits), labels=data.train.labels),
    )
