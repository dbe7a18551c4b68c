"""The table of `signsym plan`: jobs, and estimated hours before any of them runs."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from orchestrator.jobs.job import STAGES
from orchestrator.plan.compile import Plan
from orchestrator.plan.cost import CORE, GPU
from orchestrator.plan.estimate import StoreSurvey, hours, longest_chain, unshared


def show(plan: Plan, survey: StoreSurvey, console: Console) -> None:
    """Print cells and jobs, done and missing, and the hours of the missing jobs with the source of the estimates."""
    seconds = survey.estimates(plan.jobs.values())
    table = Table("", "jobs", "GPU hours", "CPU hours", title=f"{plan.grid}: {len(plan.cells)} cells")
    for stage in STAGES:
        jobs = [job for job in plan.jobs.values() if job.kind == stage]
        table.add_row(stage, str(len(jobs)), f"{hours(jobs, seconds, 'gpu'):.2f}", f"{hours(jobs, seconds, 'cpu'):.2f}")
    table.add_section()
    for position, name in enumerate(plan.experiments):
        jobs = [job for job in plan.jobs.values() if job.experiment == position]
        gpu, cpu = hours(jobs, seconds, "gpu"), hours(jobs, seconds, "cpu")
        table.add_row(f"experiment {name}", str(len(jobs)), f"{gpu:.2f}", f"{cpu:.2f}")
    table.add_section()
    every = list(plan.jobs.values())
    gpu, cpu = hours(every, seconds, "gpu"), hours(every, seconds, "cpu")
    table.add_row("all", str(len(every)), f"{gpu:.2f}", f"{cpu:.2f}")
    console.print(table)
    say = console.print
    say(f"done already: {len(plan.done)} cells; missing: {plan.missing} cells, {len(plan.jobs)} jobs", highlight=False)
    say(
        f"{len(plan.finetunes)} fine-tuned models serve the {len(plan.cells)} cells; one fine-tune per missing cell "
        f"would take {unshared(plan, seconds, survey):.1f} hours more",
        highlight=False,
    )
    chain = longest_chain(plan, seconds)
    say(f"longest chain of dependent jobs: {chain / 3600:.2f} hours, on any number of GPUs")
    guessed = [job for job in every if job.group not in survey.seconds]
    say(f"times: {len(every) - len(guessed)} jobs from measurements in this store, {len(guessed)} from stated defaults")
    if guessed:
        say(
            f"the defaults count multiply-adds, {GPU:.0e} a second on a GPU and {CORE:.0e} on a core; they are no "
            f"measurements: plan again after the first jobs of each kind"
        )
