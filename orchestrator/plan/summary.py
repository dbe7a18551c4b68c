"""The table of `signsym plan`: jobs, and the estimated time that they take, before any of them runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from orchestrator.jobs.job import STAGES, Job
from orchestrator.plan.estimate import StoreSurvey, hours, longest_chain, unshared
from orchestrator.plan.full import Plan

#: Units of time that amounts are told in, with their hours and the decimals that say something.
_UNITS = (("hours", 1.0, 2), ("minutes", 1 / 60, 1), ("seconds", 1 / 3600, 1))


def show(plan: Plan, survey: StoreSurvey, console: Console) -> None:
    """Print cells and jobs, done and missing, and the time of the missing jobs with the source of the estimates.

    The table is in the largest unit of which its total has one: a grid of a minute would be 0.00 hours.
    """
    seconds, every = survey.estimates(plan.jobs.values()), list(plan.jobs.values())
    unit = _unit(max(hours(every, seconds, resource) for resource in ("gpu", "cpu")))
    columns = ("", "jobs", f"GPU {unit[0]}", f"CPU {unit[0]}", "measured")
    table = Table(*columns, title=f"{plan.grid}: {len(plan.cells)} cell{'s' * (len(plan.cells) != 1)}")

    def line(name: str, jobs: Sequence[Job]) -> None:
        amounts = (_number(hours(jobs, seconds, resource), unit) for resource in ("gpu", "cpu"))
        table.add_row(name, str(len(jobs)), *amounts, _measured(jobs, seconds, survey))

    for stage in STAGES:
        line(stage, [job for job in every if job.kind == stage])
    table.add_section()
    for position, name in enumerate(plan.experiments):
        line(f"experiment {name}", [job for job in every if job.experiment == position])
    table.add_section()
    line("all", every)
    console.print(table)
    say = console.print
    say(f"done already: {len(plan.done)} cells; missing: {plan.missing} cells, {len(plan.jobs)} jobs")
    if saved := unshared(plan, seconds, survey):
        say(
            f"{len(plan.finetunes)} fine-tuned models serve the {len(plan.cells)} cells; one fine-tune per missing "
            f"cell would take {_amount(saved)} more",
        )
    chain = longest_chain(plan, seconds) / 3600
    say(f"longest chain of dependent jobs: {_amount(chain)}, on any number of GPUs")
    _say_sources(every, seconds, survey, console)


def _measured(jobs: Sequence[Job], seconds: Mapping[str, float], survey: StoreSurvey) -> str:
    """The part of the jobs' time that jobs of the same network, precision, and rule or attack were measured for."""
    total = sum(seconds[job.key] for job in jobs)
    known = sum(seconds[job.key] for job in jobs if len(survey.similar(job)) == len(job.pace) > 0)
    return f"{known / total:.0%}" if total else ""


def _say_sources(jobs: Sequence[Job], seconds: Mapping[str, float], survey: StoreSurvey, console: Console) -> None:
    """Print where the times come from, and what they are by precision and device."""
    assumed = [job for job in jobs if not survey.similar(job)]
    known = [job for job in jobs if len(survey.similar(job)) == len(job.pace) > 0]
    alike = len(jobs) - len(assumed) - len(known)
    words = f"times: {len(known)} jobs from measurements in this store, {alike} from those of another network, rule or "
    console.print(f"{words}attack, {len(assumed)} assumed")
    by_kind: dict[str, list[Job]] = {}
    for job in jobs:
        kind, requested, precision, *_ = job.pace
        measured = survey.similar(job)
        device = measured[1] if measured else "a core" if requested == "cpu" else "an H100, assumed"
        device += f" in the place of {requested}" if device.startswith("an ") and requested not in ("", "H100") else ""
        by_kind.setdefault(f"{kind} in {precision} on {device}", []).append(job)
    for kind, alike_jobs in by_kind.items():
        resource = "cpu" if alike_jobs[0].pace[1] == "cpu" else "gpu"
        amount = hours(alike_jobs, seconds, resource)
        console.print(f"  {_amount(amount, f'{resource.upper()} ')}: {kind}")
    if assumed:
        console.print(
            "assumed speeds are those of an H100 and of cores of one cloud CPU (docs/performance.md), and no image is "
            "taken to be lost early: plan again after the first jobs of each kind"
        )


def _unit(amount: float) -> tuple[str, float, int]:
    """The largest unit of which so many hours are at least one; hours of nothing."""
    return next((unit for unit in _UNITS if amount >= unit[1]), _UNITS[-1 if amount else 0])


def _number(amount: float, unit: tuple[str, float, int]) -> str:
    return f"{amount / unit[1]:.{unit[2]}f}"


def _amount(amount: float, of: str = "") -> str:
    """So many hours `of` a resource, in the unit that fits: "1.25 hours", "3.4 GPU minutes"."""
    unit = _unit(amount)
    return f"{_number(amount, unit)} {of}{unit[0]}"
