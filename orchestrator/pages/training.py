"""Fine-tunes over their epochs: loss, scores, and how near their gradients are to backpropagation's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Figure, Page, Table, Value, Words
from orchestrator.drawing.facets import portion
from orchestrator.drawing.training_figure import QUANTITIES, TrainingPanel, training_figure
from orchestrator.pages.columns import STORE, filled, numbers, percents, texts
from orchestrator.pages.context import PageContext
from orchestrator.results.trainings import OF_LAYERS, FineTuned, Training, fine_tuned, trainings_of

#: Panels of a row; settings of a portion where the layers are one, and where each stands by itself; layers and
#: fine-tunes of a setting at most.
COLUMNS, PLACES, PLACES_BY_LAYER, MOST_LAYERS, MOST = 3, 4, 1, 24, 120
_BY_LAYER = ("cosine", "angle", "ratio")
_COLUMNS = (
    *texts(place="model", rule="rule"),
    *numbers(seed="seed", epoch="epoch"),
    *texts(layer="layer"),
    *numbers(loss="training loss"),
    *percents(validation="validation score", clean="clean score of the kept epoch"),
    *numbers(cosine="cosine of gradient to BP's", angle="B to W, degrees", ratio="|gradient| / |BP's|"),
    *numbers(feedback_ratio="|B| / |W|"),
    *percents(sign_agreement="equal signs"),
)


def page(context: PageContext) -> Page:
    """The fine-tunes that the filters choose, a group of panels for each setting."""
    places = _places(context)
    if not places:
        return context.nothing("Training")
    number, portions, shown = portion(context.view.portion, list(places.items()), _size(context))
    trainings = {place: _trainings(context, place, models) for place, models in shown}
    trainings = {place: few for place, few in trainings.items() if few}
    blocks = context.turning(number, portions, len(shown), len(places), "settings")
    if not trainings:
        return context.finished("Training", [*blocks, _NOTHING])
    panels, columns = _panels(context, trainings)
    every = [training for few in trainings.values() for training in few]
    title = "Training over epochs" + (", layer by layer" if context.view.layers == "each" else "")
    rules = ", ".join(dict.fromkeys(style.label(training.model.rule_label) for training in every))
    described = f"{title}: {style.counted(len(every), 'fine-tune')} of {rules} on {', '.join(trainings)}. The table "
    figure = (
        []
        if not panels
        else [
            Figure(
                name="training",
                title=title,
                described=f"{described}below has the numbers.",
                figure=training_figure(panels, columns),
                table=_table(context, every),
            )
        ]
    )
    blocks += figure or [_NO_LAYERS]
    return context.finished("Training", [*blocks, Words(title="How to read", sentences=_READING)])


def portions(context: PageContext) -> int:
    """Number of portions of the page."""
    return portion(1, list(_places(context)), _size(context))[1]


_READING = (
    "A thick line is the mean over seeds, of the epochs that all of them have; thin lines are the seeds. A single seed "
    "is a line with markers. Of numbers by layer a line is the mean over layers, unless “Layers” shows each by itself.",
    "Loss is the mean over an epoch's steps. The validation score is that of the model after the epoch, where the grid "
    "asks for one (finetune: keep: best, or patience). ◇ is the score on clean test images, at the epoch whose model "
    "was kept and attacked: click it, or a line, for its cell.",
    "Cosine and ratio compare the rule's gradient of the weights with BP's on the same weights and images, a few of "
    "each epoch's last step but one: 1 is BP. The angle is that of B, the matrix of the backward pass, to W: 0 is BP, "
    "and at 90 degrees nothing of W is left in B. Rules without a matrix in the place of W have no angle.",
)
_NOTHING = Words(
    title="Nothing is stored of these trainings",
    sentences=["The fine-tunes that the filter chooses have no record in models/, or made no step."],
    tone="todo",
)
_NO_LAYERS = Words(
    title="Nothing is stored of their layers",
    sentences=["The fine-tunes that the filter chooses have no table in alignment/; older versions wrote none."],
    tone="todo",
)


def _size(context: PageContext) -> int:
    return PLACES_BY_LAYER if context.view.layers == "each" else PLACES


def _places(context: PageContext) -> dict[str, list[FineTuned]]:
    """The fine-tunes that the filters choose by their setting. Trainings do not depend on attacks."""
    view = dataclasses.replace(context.view, attack=(), gradient=())
    of_models = dataclasses.replace(context, view=view)
    lines = [*of_models.lines(clean=True), *of_models.lines(), *of_models.corrupted()]
    places: dict[str, list[FineTuned]] = {}
    for model in fine_tuned(context.index, lines, frozenset(map(int, view.seed))):
        places.setdefault(model.place, []).append(model)
    return places


def _trainings(context: PageContext, place: str, models: Sequence[FineTuned]) -> list[Training]:
    if len(models) > MOST:
        context.problems.append(f"{place}: the first {MOST} of {len(models):,} fine-tunes are here; narrow the filter.")
    if twice := [model for model in models[:MOST] if model.twins]:
        first = twice[0]
        where = f"{style.label(first.rule_label)} on {place}, seed {first.seed}"
        more = f" (so for {style.counted(len(twice) - 1, 'more seed')} of this setting)" * (len(twice) > 1)
        context.problems.append(
            f"{where}: {1 + len(first.twins)} fine-tunes have results{more}; one is here, {first.job[:16]}, and not "
            f"{', '.join(job[:16] for job in first.twins)}. They differ in a setting that is not shown, or in the "
            f"version of signsym: use another --storage for one of them, or remove its files from results/, outcomes/."
        )
    before = context.data.skipped
    found = trainings_of(models[:MOST], context.data.histories, context.data.alignment)
    new = context.data.skipped.items() - before.items()
    context.problems += [f"Skipped {path}: {why}." for path, why in sorted(new)]
    return found


def _panels(
    context: PageContext, trainings: Mapping[str, Sequence[Training]]
) -> tuple[list[TrainingPanel | None], int]:
    """The panels row by row, the rows of one setting below each other, and their columns."""
    every = [training for few in trainings.values() for training in few]
    each = context.view.layers == "each"
    names = [name for name in (_BY_LAYER if each else QUANTITIES) if any(_has(training, name) for training in every)]
    columns = min(COLUMNS, len(names)) or 1
    panels: list[TrainingPanel | None] = []
    for place, few in trainings.items():
        layers: list[str | None] = [None]
        if each:
            known = list(dict.fromkeys(layer for training in few for layer in training.layers))
            layers = [*known[:MOST_LAYERS]]
            if len(known) > MOST_LAYERS:
                more = f"the first {MOST_LAYERS} of {len(known)} layers are drawn; the table has all."
                context.problems.append(f"{place}: {more}")
        for layer in layers:
            panels += [TrainingPanel(place=place, quantity=name, trainings=few, layer=layer) for name in names]
            panels += [None] * (-len(names) % columns)
    return panels if names else [], columns


def _has(training: Training, quantity: str) -> bool:
    scored = quantity == "validation" and training.model.clean is not None
    return scored or bool(training.series(quantity))


def _table(context: PageContext, trainings: Sequence[Training]) -> Table:
    """A row for each fine-tune and epoch, and for each layer where the view has each."""
    rows: list[Mapping[str, Value]] = []
    for training in trainings:
        layers: Sequence[str | None] = training.layers if context.view.layers == "each" else [None]
        for layer in layers or [None]:
            names = ("loss", "validation", *OF_LAYERS)
            series = {name: training.series(name, layer) for name in names}
            for epoch in training.epochs:
                kept = training.model.clean if epoch == training.history.kept else None
                values: dict[str, Value] = {name: of_epoch.get(epoch) for name, of_epoch in series.items()}
                values |= {"place": training.model.place, "rule": style.label(training.model.rule_label)}
                values |= {"seed": training.model.seed, "epoch": epoch, "layer": layer, "clean": kept}
                rows.append({**values, "cell": training.model.cell, "store": context.stores([training.model.row])})
    return Table(name="training", columns=filled((*_COLUMNS, STORE), rows), rows=rows)
