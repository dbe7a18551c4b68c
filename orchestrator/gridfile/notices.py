"""What a readable grid asks for that cannot tell anything: a sweep says it before it runs, and runs all the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.gridfile.cells import Groups
from orchestrator.gridfile.experiment import Experiment


def notices(experiments: Sequence[Experiment], groups: Iterable[Groups]) -> tuple[str, ...]:
    """A sentence with file and line for each ε at which the score of an attack is 0 whatever the model.

    `groups` are the attacks that the exclusions leave of the experiments.
    """
    # Models share their groups.
    different = {id(group): group for group in groups}.values()
    left = {(choice, epsilon) for group in different for choice, epsilons in group for epsilon in epsilons}
    sentences: dict[str, None] = {}
    for experiment in experiments:
        for choice, places in experiment.attacks.cells.items():
            for epsilon, place in places.items():
                words = choice.attack.hopeless(epsilon.value) if epsilon.value > 0 else ""
                if words and place is not None and (choice, epsilon) in left:
                    words = f"{words}, so that the score at {epsilon.label} is 0 whatever the model"
                    sentences[str(place.error(f"{choice.attack.name}: {words}"))] = None
    return tuple(sentences)
