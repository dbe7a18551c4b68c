"""What a grid means: a mixed one counted by hand, every member of the registries, and the product as a property."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from statistics import NormalDist

import pytest
from gridfiles import BASE, base, facts, written
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.gridfile.cells import Epsilon, Pretrain, Stages, Weights
from orchestrator.gridfile.grid import GridError, load
from orchestrator.gridfile.idle_sets import refuse_idle
from orchestrator.jobs.job import STAGES, Resources
from orchestrator.plan import written as planned
from orchestrator.plan.compile import compile_full
from signsym_core.attacks import ATTACKS, GRADIENTS
from signsym_core.backbones import BACKBONES
from signsym_core.datasets import DATASETS
from signsym_core.rules import RULES
from signsym_core.tasks import TASKS
from signsym_core.training.settings import FineTune

GRIDS = sorted((Path(__file__).parents[2] / "grids").glob("*.yaml"))
FAMILIES = {"task": TASKS, "dataset": DATASETS, "backbone": BACKBONES, "rule": RULES}
MEMBERS = [pytest.param(axis, cls, id=f"{axis}-{cls.name}") for axis, family in FAMILIES.items() for cls in family]


MIXED = """
    name: mixed
    seeds: [0, 1]
    defaults:
      dataset: digits
      backbone: smallcnn
      rule: [bp, frsf]
      finetune: {epochs: 5, lr: 1e-3}
      resources: {gpu: 0.25}
      weights: {pretrain: {dataset: {name: digits, classes: [0, 1]}, epochs: 2, seed: 7}}
    experiments:
      - task: classification                             # 2 rules x 2 seeds = 4 models
        dataset: [digits, {name: cifar10, size: 32}]     # x 2 = 8 models
        finetune: {batch_size: 16}
        attacks:
          - none
          - {name: [fgsm, pgd], gradient: [feedback, exact], epsilon: [0, 8/255, "1/2"]}     # 12
          - {name: pgd, steps: 9, gradient: exact, epsilon: 0.1, images: null}               # 1
        overrides:
          - {when: {rule: frsf}, finetune: {epochs: 3}, resources: {cpu: 2}}
          - {when: {rule: frsf, seed: [1]}, finetune: {lr: 0.5}, weights: null}
      - task: classification                             # 1 model, 2 cells; clean is there already
        rule: bp
        seeds: [0]
        finetune: {batch_size: 16}
        attacks:
          - {name: fgsm, gradient: exact, epsilon: [0.3, 0.25]}
      - task: classification                             # 1 model, only clean
        rule: {name: frsf, scale: xavier}
        seeds: [3]
        weights: models/mine.pt
        finetune: {epochs: 0}
    exclude:
      - {dataset: cifar10, rule: frsf, seed: 1}          # 1 model of 14 cells
      - {dataset: cifar10, attack: {name: pgd, steps: 5}, gradient: exact, epsilon: 0.5}   # 1 cell in 3 models
      - {rule: bp, seed: 1, epsilon: 0}                  # 5 cells in 2 models, the clean one among them
"""


@pytest.fixture
def mixed(tmp_path):
    return load(written(tmp_path, MIXED))


def test_the_mixed_grid_has_the_cells_counted_by_hand(mixed):
    # 8 models x 14 cells, minus 14, 3 and 2 x 5; two more on a model that is there; one model with its clean cell.
    assert len(mixed) == 8 * 14 - 14 - 3 - 10 + 2 + 1 == 88
    assert len(mixed.models) == 8 - 1 + 1
    cells = list(mixed.cells())
    assert len(cells) == len(set(cells)) == 88
    assert [(run.model, run.attacks) for run in mixed.runs()] == list(mixed.models.items())


def test_the_order_of_the_mixed_grid(mixed):
    models = [(m.dataset.name, m.rule.name, m.seed) for m in mixed.models]
    assert models == [
        ("digits", "bp", 0),
        ("digits", "bp", 1),
        ("digits", "frsf", 0),
        ("digits", "frsf", 1),
        ("cifar10", "bp", 0),
        ("cifar10", "bp", 1),
        ("cifar10", "frsf", 0),
        ("digits", "frsf", 3),
    ]
    first = next(mixed.runs())
    shape = [
        (choice.attack.name, choice.gradient, choice.images, [epsilon.label for epsilon in epsilons])
        for choice, epsilons in first.attacks
    ]
    three = ["0", "8/255", "1/2"]
    assert shape == [
        ("none", "none", None, ["0"]),
        ("fgsm", "feedback", 5000, three),
        ("fgsm", "exact", 5000, [*three, "0.3", "0.25"]),
        ("pgd", "feedback", 5000, three),
        ("pgd", "exact", 5000, three),
        ("pgd", "exact", None, ["0.1"]),
    ]


def stages(**amounts):
    """The same resources for every stage."""
    return Stages(**dict.fromkeys(STAGES, Resources(**amounts)))


def test_settings_merge_key_by_key_and_overrides_in_their_order(mixed):
    by_point = {(m.dataset.name, m.rule.name, m.seed): m for m in mixed.models}
    plain, once, twice = (by_point["digits", *point] for point in (("bp", 0), ("frsf", 0), ("frsf", 1)))
    assert plain.finetune == FineTune(epochs=5, lr=1e-3, batch_size=16)
    assert once.finetune == FineTune(epochs=3, lr=1e-3, batch_size=16)
    assert twice.finetune == FineTune(epochs=3, lr=0.5, batch_size=16)
    assert by_point["digits", "frsf", 3].finetune == FineTune(epochs=0, lr=1e-3)
    assert plain.resources == stages(gpu=0.25, cpu=1)
    assert once.resources == twice.resources == stages(gpu=0.25, cpu=2)
    source = DATASETS.build("digits", classes=[0, 1])
    assert plain.weights == once.weights == Pretrain(dataset=source, settings=FineTune(epochs=2), seed=7)
    assert twice.weights is None
    assert by_point["digits", "frsf", 3].weights == Weights(source="models/mine.pt")
    assert not by_point["digits", "frsf", 3].weights.published


def test_equal_members_are_one_object(mixed):
    for take in (lambda m: m.rule, lambda m: m.dataset, lambda m: m.finetune, lambda m: m.weights, lambda m: m.task):
        values = [take(model) for model in mixed.models]
        assert len({id(value) for value in values}) == len(set(values))
    choices = [choice for run in mixed.runs() for choice, _ in run.attacks]
    assert len({id(choice) for choice in choices}) == len(set(choices))


def test_a_stage_has_the_resources_of_all_under_its_own(tmp_path):
    text = {"gpu": 1, "cpu": 4, "attack": {"gpu": "auto", "minutes": 5}, "accelerator_type": "H200"}
    model = next(iter(load(written(tmp_path, base(resources=text))).models))
    common = {"gpu": 1.0, "cpu": 4.0, "accelerator_type": "H200"}
    assert model.resources.pretrain == model.resources.finetune == Resources(**common)
    assert model.resources.attack == Resources(**{**common, "gpu": "auto", "minutes": 5.0})
    # What is said of a stage stays, whatever is put over the grid for all.
    sets = ["experiments.0.resources.gpu=0", "experiments.0.resources.cpu=1"]
    over = load(written(tmp_path, base(resources=text)), sets)
    (model, *_) = over.models
    assert model.resources.attack == Resources(gpu="auto", cpu=1, accelerator_type="H200", minutes=5)
    assert model.resources.finetune.gpu == 0


def test_resources_are_no_part_of_a_model(tmp_path):
    models = [next(iter(load(written(tmp_path, base(resources={"cpu": cpu}))).models)) for cpu in (1, 8)]
    assert models[0] == models[1]
    assert hash(models[0]) == hash(models[1])
    assert models[0].resources != models[1].resources


@pytest.mark.parametrize(
    ("written_as", "label", "value"),
    [
        ("0", "0", 0.0),
        ("0.0", "0", 0.0),
        ("-0.0", "0", 0.0),
        ("1", "1", 1.0),
        ("0.001", "0.001", 0.001),
        ("1e-3", "0.001", 0.001),
        ("1e-5", "0.00001", 1e-5),
        (".50", "0.5", 0.5),
        ("0.1000000000000000055511151231257827", "0.1", 0.1),
        ("8/255", "8/255", 8 / 255),
        ('"8/255"', "8/255", 8 / 255),
        ("16/510", "16/510", 8 / 255),
        ("3/3", "3/3", 1.0),
    ],
)
def test_epsilons_keep_an_exact_label(tmp_path, written_as, label, value):
    grid = load(written(tmp_path, BASE), [f"experiments.0.attacks.0.epsilon={written_as}"])
    *_, cell = grid.cells()
    assert (cell.epsilon.label, cell.epsilon.value) == (label, value)
    assert str(cell.epsilon.value) != "-0.0"


@pytest.mark.parametrize(
    ("attack", "written_as", "fits"),
    [
        ({"name": "boundary"}, 3, True),
        ({"name": "boundary"}, "5/2", True),
        ({"name": "boundary"}, -0.1, False),
        ({"name": "boundary"}, float("inf"), False),
        ({"name": "hopskipjump"}, 40, True),
        ({"name": "hopskipjump", "constraint": "linf"}, 1, True),
        ({"name": "hopskipjump", "constraint": "linf"}, 1.1, False),
        ({"name": "square"}, 1.1, False),
        ({"name": "square", "norm": "l2"}, 12, True),
        ({"name": "pgd", "norm": "l2"}, "5/2", True),
        ({"name": "pgd", "norm": "l2"}, -0.1, False),
        ({"name": "pgd", "norm": "linf"}, 1.1, False),
    ],
)
def test_only_a_radius_in_l2_may_be_larger_than_1(tmp_path, attack, written_as, fits):
    file = written(tmp_path, base(attacks=[{**attack, "epsilon": written_as}]))
    if not fits:
        with pytest.raises(GridError, match="an epsilon: a number"):
            load(file)
        return
    *_, cell = load(file).cells()
    assert cell.epsilon.value == (2.5 if written_as == "5/2" else written_as)


def test_a_list_of_values_of_a_parameter_is_an_axis_as_its_values_one_by_one_are(tmp_path):
    def cells(*attacks, exclude=None):
        return [*load(written(tmp_path, base(attacks=[*attacks]) | ({"exclude": exclude} if exclude else {}))).cells()]

    radii = {"epsilon": [0.1, 0.2]}
    several = cells({"name": "smoothing", "sigma": [0.12, 0.25], "samples": [100, 200], **radii})
    one_by_one = [
        {"name": "smoothing", "sigma": s, "samples": n, **radii} for s, n in itertools.product((0.12, 0.25), (100, 200))
    ]
    assert several == cells(*one_by_one)
    assert len(several) == 1 + 8
    both = {"name": ["fgsm", "pgd"], "norm": ["linf", "l2"], "gradient": ["feedback", "exact"], "epsilon": 0.1}
    assert cells(both) == cells(
        *({**both, "name": name, "norm": norm} for name in both["name"] for norm in both["norm"])
    )
    with pytest.raises(GridError, match="an epsilon: a number in"):
        cells({**both, "epsilon": 2})
    pgd = {"name": "pgd", "steps": [5, 10, 20], "epsilon": 0.1}
    left = cells(pgd, exclude=[{"attack": {"name": "pgd", "steps": [5, 20]}}])
    assert [cell.choice.attack.steps for cell in left[1:]] == [10]


def test_radii_that_no_image_can_be_certified_at_are_told_with_their_lines(tmp_path):
    content = """\
        name: far
        seeds: [0]
        defaults: {task: classification, dataset: digits, backbone: smallcnn, rule: [bp, usf]}
        experiments:
          - attacks:
              - name: smoothing
                sigma: [0.1, 0.5]
                samples: 100
                epsilon:
                  - 0.1
                  - 0.2
                  - 0.8
        exclude:
          - {attack: {name: smoothing, sigma: 0.5}, epsilon: 0.8}
    """
    grid = load(written(tmp_path, content))
    # All of 100 draws agree: p^100 = 0.001.
    limit = 0.1 * NormalDist().inv_cdf(0.001 ** (1 / 100))
    assert 0.1 < limit < 0.2
    told = f"smoothing: 100 samples with sigma = 0.1 certify no image from ε = {limit:.4g} on, so that the score at "
    file, where = tmp_path / "grid.yaml", "experiments.0.attacks.0.epsilon"
    assert grid.notices == (
        f"{file}:11: {where}.1: {told}0.2 is 0 whatever the model",
        f"{file}:12: {where}.2: {told}0.8 is 0 whatever the model",
    )
    full = compile_full(grid)
    assert planned.read(planned.written(full)).notices == full.notices == grid.notices


def test_epsilons_are_equal_by_value():
    assert Epsilon(label="1/2", value=0.5) == Epsilon(label="0.5", value=0.5)


def test_the_clean_cell_comes_by_itself_and_may_be_named(tmp_path):
    silent = load(written(tmp_path, base(attacks=[{"name": "fgsm", "epsilon": 0.1}])))
    named = load(written(tmp_path, base(attacks=[{"name": "fgsm", "epsilon": 0.1}, "none"])))
    assert list(silent.cells()) == list(named.cells())
    clean = next(silent.cells())
    assert (clean.choice.attack.name, clean.choice.gradient, clean.choice.images) == ("none", "none", None)
    assert clean.epsilon.value == 0
    excluded = load(
        written(tmp_path, {**base(attacks=[{"name": "fgsm", "epsilon": 0}]), "exclude": [{"attack": "none"}]})
    )
    assert [facts(cell)[-3:] for cell in excluded.cells()] == [("fgsm", "feedback", 0.0)]


def test_one_model_in_two_experiments_stays_one(tmp_path):
    one = BASE["experiments"][0]
    other = {**one, "attacks": [{"name": "pgd", "epsilon": 0.1}]}
    grid = load(written(tmp_path, {**BASE, "experiments": [one, other]}))
    assert len(grid.models) == 1
    assert [facts(cell)[-3] for cell in grid.cells()] == ["none", "fgsm", "fgsm", "pgd"]


def _attack_for(task):
    """The first gradient attack that serves `task`."""
    return next(cls.name for cls in ATTACKS if task in cls.tasks and "white-box" in cls.tags)


@pytest.mark.parametrize(("axis", "cls"), MEMBERS)
def test_every_member_has_its_name_and_its_defaults(tmp_path, axis, cls):
    # At 224 pixels every backbone fits.
    changes = {"dataset": {"name": "imagefolder", "size": 224}, "finetune": {"optimizer": "adamw"}, axis: cls.name}
    if axis == "dataset" and cls().sides is not None:
        changes["backbone"] = "rnn"
    if cls.name == "lra":
        changes |= {"dataset": "temporal_order", "backbone": "rnn"}
    if axis == "task":
        changes["attacks"] = [{"name": _attack_for(cls.name), "epsilon": 0.1}]
    defaults = cls().parameters()
    if cls.no_default:
        changes[axis] = {"name": cls.name, **{key: defaults[key] for key in cls.no_default}}
    short = load(written(tmp_path, base(**changes)))
    long = load(written(tmp_path, base(**{**changes, axis: {"name": cls.name, **defaults}})))
    assert [getattr(model, axis) for model in short.models] == [cls()]
    assert list(short.cells()) == list(long.cells())
    with pytest.raises(GridError, match="did you mean"):
        load(written(tmp_path, base(**{**changes, axis: cls.name + "x"})))


@pytest.mark.parametrize("cls", ATTACKS, ids=lambda cls: cls.name)
def test_every_attack_has_its_name_and_its_gradients(tmp_path, cls):
    item = {"name": cls.name} if cls.name == "none" else {"name": cls.name, "epsilon": 0.1}
    if "white-box" in cls.tags:
        item["gradient"] = list(GRADIENTS)
    grid = load(written(tmp_path, base(attacks=[item], task=sorted(cls.tasks)[0])))
    gradients = [cell.choice.gradient for cell in grid.cells() if cell.choice.attack == cls()]
    assert gradients == item.get("gradient", ["none"])


@pytest.mark.parametrize("field", dataclasses.fields(FineTune), ids=lambda field: field.name)
def test_every_finetune_setting_may_be_given(tmp_path, field):
    grid = load(written(tmp_path, base(finetune={field.name: field.default})))
    assert next(iter(grid.models)).finetune == FineTune()


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_the_projects_own_grids_load(path):
    grid = load(path)
    assert len(grid) == len(list(grid.cells())) > 0
    assert grid.text == path.read_text(encoding="utf-8")


#: Rules that take every backbone.
ANYWHERE = [rule.name for rule in RULES if rule.by_layer]
AXES = {"rule": ANYWHERE, "backbone": ["smallcnn", "resnet18", "vgg16"], "seed": [0, 1, 2, 9]}
POINTS = {
    "attack": ["none", "fgsm", "pgd"],
    "gradient": ["none", "feedback", "exact"],
    "epsilon": [0, 0.125, 0.25, 0.5],
}


def some(values):
    """A list of some of the values, each once, in any order."""
    return st.lists(st.sampled_from(values), min_size=1, unique=True)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(
    axes=st.fixed_dictionaries({axis: some(values) for axis, values in AXES.items()}),
    names=some(["fgsm", "pgd"]),
    gradients=some(["feedback", "exact"]),
    epsilons=some(POINTS["epsilon"]),
    excludes=st.lists(
        st.fixed_dictionaries({}, optional={k: some(v) for k, v in (AXES | POINTS).items()}).filter(bool), max_size=3
    ),
)
def test_the_cells_are_the_product_without_the_excluded(axes, names, gradients, epsilons, excludes, tmp_path_factory):
    attacks = [("none", "none", 0), *itertools.product(names, gradients, epsilons)]
    product = [
        dict(zip(("backbone", "rule", "seed", "attack", "gradient", "epsilon"), (*model, *attack), strict=True))
        for model in itertools.product(axes["backbone"], axes["rule"], axes["seed"])
        for attack in attacks
    ]

    def hit(exclude, point):
        return all(point[axis] in values for axis, values in exclude.items())

    left = [tuple(point.values()) for point in product if not any(hit(exclude, point) for exclude in excludes)]
    idle = [exclude for exclude in excludes if not any(hit(exclude, point) for point in product)]
    item = {"name": names, "gradient": gradients, "epsilon": epsilons}
    # Kolen-Pollack learning refuses the default, whose decay is coupled.
    chosen = {"finetune": {"optimizer": "adamw"}, "attacks": [item]}
    experiment = base(backbone=axes["backbone"], rule=axes["rule"], seeds=axes["seed"], **chosen)
    path = written(tmp_path_factory.getbasetemp(), {**experiment, "exclude": excludes})
    if idle or not left:
        with pytest.raises(GridError) as caught:
            load(path)
        assert len(caught.value.problems) == (len({id(exclude) for exclude in idle}) or 1)
        return
    grid = load(path)
    assert [facts(cell)[2:] for cell in grid.cells()] == left
    assert len(grid) == len(left)


@pytest.mark.parametrize(
    ("setting", "take", "value"),
    [
        ("seeds=[4]", lambda model: model.seed, 4),
        ("defaults.resources.gpu=0.5", lambda model: model.resources.attack.gpu, 0.5),
        ("experiments.0.finetune.epochs=1", lambda model: model.finetune.epochs, 1),
        ("experiments.0.finetune.lr=1e-5", lambda model: model.finetune.lr, 1e-5),
        ("experiments.0.rule={name: frsf, scale: unit}", lambda model: model.rule.changed(), {"scale": "unit"}),
        ("experiments.0.weights=a=b.pt", lambda model: model.weights.source, "a=b.pt"),
        ("experiments.0.weights=", lambda model: model.weights, None),
    ],
)
def test_a_setting_goes_over_the_file(tmp_path, setting, take, value):
    grid = load(written(tmp_path, BASE), [setting])
    assert [take(model) for model in grid.models] == [value]
    assert grid.sets == (setting,)
    assert json.loads(grid.text) == BASE


@pytest.mark.parametrize(
    ("setting", "own"),
    [
        ("defaults.rule=usf", "rule"),
        ("defaults.rule={name: usf, scale: unit}", "rule"),
        ("defaults.finetune.epochs=1", "finetune.epochs"),
        ("defaults.attacks=[none]", "attacks"),
    ],
)
def test_a_setting_that_every_experiment_replaces_is_refused(tmp_path, setting, own):
    path = written(tmp_path, base(rule=["bp", "frsf"], finetune={"epochs": 2}, attacks=["none"]))
    with pytest.raises(GridError, match=rf"each experiment has its own {own}: set experiments\.0\.{own}"):
        refuse_idle(path.read_text(), [setting])
    # Stored with it, the grid is still read.
    assert len(load(path, [setting])) == 2
    refuse_idle(
        path.read_text(), [f"experiments.0.{own}=", "defaults.finetune.lr=0.5", "defaults.finetune={epochs: 3}"]
    )


def test_a_key_of_experiments_at_the_top_is_told_its_place(tmp_path):
    with pytest.raises(GridError, match=r"expected 'finetune' in an experiment, or in defaults for all of them"):
        load(written(tmp_path, BASE), ["finetune.epochs=1"])


def test_later_settings_see_earlier_ones(tmp_path):
    grid = load(written(tmp_path, BASE), ["experiments.0.rule=[bp, usf]", "experiments.0.rule.1=brsf"])
    assert [model.rule.name for model in grid.models] == ["bp", "brsf"]
