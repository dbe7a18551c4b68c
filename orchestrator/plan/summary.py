"""The table of `signsym plan`: jobs, and estimated hours before any of them runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from orchestrator.jobs.job import STAGES, Job
from orchestrator.plan.estimate import StoreSurvey, hours, longest_chain, unshared
from orchestrator.plan.full import Plan


def show(plan: Plan, survey: StoreSurvey, console: Console) -> None:
    """Print cells and jobs, done and missing, and the hours of the missing jobs with the source of the estimates."""
    seconds, every = survey.estimates(plan.jobs.values()), list(plan.jobs.values())
    columns = ("", "jobs", "GPU hours", "CPU hours", "measured")
    table = Table(*columns, title=f"{plan.grid}: {len(plan.cells)} cells")

    def line(name: str, jobs: Sequence[Job]) -> None:
        amounts = (f"{hours(jobs, seconds, resource):.2f}" for resource in ("gpu", "cpu"))
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
    say(
        f"{len(plan.finetunes)} fine-tuned models serve the {len(plan.cells)} cells; one fine-tune per missing cell "
        f"would take {unshared(plan, seconds, survey):.1f} hours more",
    )
    chain = longest_chain(plan, seconds)
    say(f"longest chain of dependent jobs: {chain / 3600:.2f} hours, on any number of GPUs")
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
        console.print(f"  {amount:.2f} {resource.upper()} hours: {kind}")
    if assumed:
        console.print(
            "assumed speeds are those of an H100 and of cores of one cloud CPU (docs/performance.md), and no image is "
            "taken to be lost early: plan again after the first jobs of each kind"
        )
