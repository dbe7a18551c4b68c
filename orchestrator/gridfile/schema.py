"""A JSON Schema of grid files, for editors: written from the registries and from the keys that the loader reads.

The loader refuses everything that the schema refuses, and more: combinations, repeated cells, conditions that match
nothing, and ranges that depend on another value.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, get_args

from orchestrator.gridfile.attacks import ATTACK_KEYS, SURROGATE_SEEDS
from orchestrator.gridfile.callbacks import KNOWN
from orchestrator.gridfile.cells import NO_GRADIENT, Head
from orchestrator.gridfile.grid import DEFAULTS_KEYS, EXPERIMENT_KEYS, GRID_KEYS, NAME, TRAINING_KEYS
from orchestrator.gridfile.parameters import Schema, parameters
from orchestrator.gridfile.values import ATTACK_AXES, MODEL_AXES, NAMED_AXES, axes_of
from orchestrator.jobs.job import STAGES
from signsym_core.attacks import ATTACKS, GRADIENTS, Attack
from signsym_core.attacks.base import NormedAttack
from signsym_core.attacks.none import NoAttack
from signsym_core.registry import Member, Registry
from signsym_core.training.adversarial import DEFAULT_GRADIENT, OF_TRAINING
from signsym_core.training.settings import FineTune

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_SEED: Schema = {"type": "integer", "minimum": 0}
_FRACTION: Schema = {"type": "string", "pattern": "^[0-9]{1,15}/0*[1-9][0-9]*$"}
_RADIUS: Schema = {"anyOf": [{"type": "number", "minimum": 0}, _FRACTION]}
_RADIUS_IN_LINF: Schema = {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, _FRACTION]}
_AMOUNTS: dict[str, Schema] = {
    "gpu": {
        "anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "integer", "minimum": 0}, {"const": "auto"}],
        "description": "A whole number of GPUs, a fraction below 1, or auto: the smallest share that memory allows.",
    },
    "cpu": {"type": "number", "exclusiveMinimum": 0},
    "accelerator_type": {"type": ["string", "null"], "minLength": 1, "description": "Ray's name, such as H200."},
    "minutes": {"type": "number", "exclusiveMinimum": 0, "description": "A job that runs longer counts as failed."},
}


def grid_schema() -> Schema:
    """The schema, with the user's own members that SIGNSYM_EXTENSIONS names."""
    settings = {key: _defined(key) for key in EXPERIMENT_KEYS}
    keys: dict[str, Schema] = {
        "name": {"type": "string", "pattern": f"^{NAME.pattern}$"},
        "seeds": settings["seeds"],
        "defaults": _mapping({key: settings[key] for key in DEFAULTS_KEYS}, "Any key of an experiment."),
        "experiments": {"type": "array", "minItems": 1, "items": _mapping(settings, "The full product of its axes.")},
        "exclude": {"type": "array", "items": _condition([*MODEL_AXES, *ATTACK_AXES])},
        "callbacks": _one_or_more(_callback()),
    }
    return {
        "$schema": DIALECT,
        "title": "A grid of signsym",
        **_mapping({key: keys[key] for key in GRID_KEYS}, required=["name", "experiments"]),
        "allOf": [_somewhere("seeds" if axis == "seed" else axis) for axis in MODEL_AXES],
        "$defs": _definitions(),
    }


def _defined(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _definitions() -> dict[str, Schema]:
    """The keys of an experiment, and the members and radii that several of them name."""
    families = {**NAMED_AXES, "attack": ATTACKS}
    override = _mapping({"when": _condition(MODEL_AXES)} | {key: _defined(key) for key in TRAINING_KEYS}, "", ["when"])
    stages = {stage: _mapping(_AMOUNTS, f"What a {stage} job is given.") for stage in STAGES}
    return {
        **{axis: _one_or_more(_defined(f"a-{axis}")) for axis in NAMED_AXES},
        "seeds": {"type": "array", "items": _SEED, "minItems": 1, "uniqueItems": True},
        "weights": _weights(),
        "finetune": _mapping(parameters(FineTune), "Settings of the fine-tune."),
        "adversarial": _trained_against(),
        "resources": _mapping(_AMOUNTS | stages, "What each trial is given; no part of a job's identity."),
        "attacks": _one_or_more(_attack()),
        "radius": _RADIUS,
        "radii": _one_or_more(_defined("radius")),
        "radii-in-linf": _one_or_more(_RADIUS_IN_LINF),
        "overrides": {"type": "array", "items": override | {"minProperties": 2}},
        **{f"a-{family}": _member(registry) for family, registry in families.items()},
    }


def _somewhere(key: str) -> Schema:
    """Requires a key in each experiment, or in `defaults`, or for seeds at the top."""
    places: list[Schema] = [{"properties": {"defaults": {"required": [key]}}, "required": ["defaults"]}]
    if key == "seeds":
        places.append({"required": [key]})
    return {"anyOf": [*places, {"properties": {"experiments": {"items": {"required": [key]}}}}]}


def _names(registry: Registry[Any]) -> Schema:
    """The names of a family's members; for a library's members only the form of the name."""
    known: Schema = {"enum": registry.names, "markdownEnumDescriptions": [_sentence(member) for member in registry]}
    libraries = [{"type": "string", "pattern": f"^{library}:."} for library in registry.libraries]
    return {"anyOf": [known, *libraries]} if libraries else known


def _member(registry: Registry[Any]) -> Schema:
    """A member of a family: its name, or a mapping with its name and parameters."""
    names = _names(registry)
    by_name = [_where_named(cls.name, _mapping({"name": True} | _parameters(cls))) for cls in registry]
    mapping = {"type": "object", "properties": {"name": names}, "required": ["name"], "allOf": by_name}
    return {"anyOf": [names, mapping]}


def _parameters(cls: type[Member]) -> dict[str, Schema]:
    """The parameters of a member, of which some are axes."""
    schemas = parameters(cls)
    for key, usual in axes_of(cls).items():
        words = {word: schemas[key].pop(word) for word in ("description", "default") if word in schemas[key]}
        every: list[Schema] = [{"enum": ["all", *usual]}] if usual else []
        schemas[key] = words | {"anyOf": [*every, *_one_or_more(schemas[key])["anyOf"]]}
    return schemas


def _attack() -> Schema:
    """An item of `attacks`: one or more names, the shared keys, and the parameters of each name."""
    by_name = []
    for attack in ATTACKS:
        keys: dict[str, Any] = dict.fromkeys(ATTACK_KEYS, True)
        keys["gradient"] = keys["surrogate"] = "white-box" in attack.tags
        # The norm of an attack that overrides it may depend on a parameter.
        keys["epsilon"] = _defined("radii-in-linf" if attack.norm is Attack.norm else "radii")
        only_name = attack is NoAttack
        item = _mapping({"name": True} if only_name else keys | _parameters(attack))
        if issubclass(attack, NormedAttack):
            l2: Schema = {"const": "l2"}
            norm: Schema = {"anyOf": [l2, {"type": "array", "items": l2}]}
            in_l2: Schema = {"properties": {"norm": norm}, "required": ["norm"]}
            item |= {"if": in_l2, "else": {"properties": {"epsilon": _defined("radii-in-linf")}}}
        by_name.append(_where_named(attack.name, item if only_name else item | {"required": ["epsilon"]}))
    shared: dict[str, Schema] = {
        "name": _one_or_more(_names(ATTACKS)),
        "gradient": _one_or_more({"enum": list(GRADIENTS)}),
        "surrogate": _surrogate(),
        "epsilon": _defined("radii") | {"description": "Radii in the [0, 1] pixel range: numbers or fractions."},
        "images": {"type": ["integer", "null"], "minimum": 1, "description": "Of the test images; null: all."},
    }
    mapping = {"type": "object", "properties": shared, "required": ["name"], "allOf": by_name}
    return {"anyOf": [{"const": NoAttack.name}, mapping]}


def _surrogate() -> Schema:
    keys = {
        "rule": _defined("rule") | {"description": "Its rule; each of a list is a surrogate of its own."},
        "seed": _one_or_more({"enum": SURROGATE_SEEDS})
        | {"description": "By default same; other: the next smaller seed of the list, for the smallest the next one."},
    }
    words = "With gradient: transfer, the model that the examples are made on; by default BP of the same seed."
    return _mapping(keys, words, ["rule"])


def _trained_against() -> Schema:
    """The attack of an adversarial training: one name, one epsilon, and the parameters of the name."""
    by_name, known = [], [attack for attack in ATTACKS if attack is not NoAttack and "classification" in attack.tasks]
    for attack in known:
        own = {key: schema for key, schema in parameters(attack).items() if key not in OF_TRAINING}
        keys: dict[str, Any] = {"name": True, "epsilon": True, "gradient": "white-box" in attack.tags}
        by_name.append(_where_named(attack.name, _mapping(keys | own)))
    sources = [name for name, source in GRADIENTS.items() if not source.twin]
    libraries = [{"type": "string", "pattern": f"^{library}:."} for library in ATTACKS.libraries]
    shared: dict[str, Schema] = {
        "name": {"anyOf": [{"enum": [attack.name for attack in known]}, *libraries]},
        "gradient": {"enum": sources, "default": DEFAULT_GRADIENT},
        "epsilon": {
            "anyOf": [{"type": "number", "exclusiveMinimum": 0}, _FRACTION],
            "description": "A radius above 0 in the [0, 1] pixel range: a number or a fraction.",
        },
    }
    return {"type": "object", "properties": shared, "required": ["name", "epsilon"], "allOf": by_name}


def _where_named(name: str, then: Schema) -> Schema:
    """`then` for a mapping whose name is `name`, or a list with it."""
    named = {"anyOf": [{"const": name}, {"type": "array", "contains": {"const": name}}]}
    return {"if": {"properties": {"name": named}, "required": ["name"]}, "then": then}


def _weights() -> Schema:
    before: dict[str, Schema] = {
        "dataset": _defined("a-dataset"),
        "seed": _SEED | {"description": "By default 0; with head: keep that of the fine-tune that goes on."},
        "rule": _defined("a-rule") | {"description": "By default bp."},
        "head": {
            "enum": list(get_args(Head)),
            "description": "fresh: a classification is trained, and its body is taken; keep: the fine-tune of the same "
            "task, and the whole network goes on.",
        },
        "weights": _defined("weights"),
    }
    pretrain = _mapping(before | parameters(FineTune))
    named = {"type": ["string", "null"], "minLength": 1}
    trained = _mapping({"pretrain": pretrain | {"required": ["dataset"]}}, required=["pretrain"])
    return {
        "anyOf": [named, trained],
        "description": "null, the name of torchvision's weights, a local file, or a training before (by default BP).",
    }


def _condition(axes: Sequence[str]) -> Schema:
    """A choice of models or cells: for some axes, one or more values."""
    values: dict[str, Schema] = {
        **{axis: _defined(f"a-{axis}") for axis in (*NAMED_AXES, "attack")},
        "seed": _SEED,
        "gradient": {"enum": [*GRADIENTS, NO_GRADIENT]},
        "epsilon": _defined("radius"),
    }
    lists: dict[str, Schema] = {
        axis: {"anyOf": [values[axis], {"type": "array", "items": values[axis], "minItems": 1}]} for axis in axes
    }
    return _mapping(lists) | {"minProperties": 1}


def _callback() -> Schema:
    names = {"enum": list(KNOWN)}
    return {"anyOf": [names, {"type": "object", "properties": {"name": names}, "required": ["name"]}]}


def _one_or_more(item: Schema) -> Schema:
    """A single value, or a list of different values."""
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1, "uniqueItems": True}]}


def _mapping(keys: dict[str, Any], description: str = "", required: Sequence[str] = ()) -> Schema:
    """A mapping without any other keys."""
    schema: Schema = {"type": "object", "properties": keys, "additionalProperties": False}
    schema |= {"description": description} if description else {}
    return schema | ({"required": list(required)} if required else {})


def _sentence(member: type[Member]) -> str:
    """A member's label and the first paragraph of its docstring."""
    words = (inspect.getdoc(member) or "").partition("\n\n")[0].replace("\n", " ")
    return f"{member.label}: {words}"
