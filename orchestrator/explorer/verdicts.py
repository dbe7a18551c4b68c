"""What the numbers say in sentences, and no more than their intervals allow."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.explorer import style
from orchestrator.explorer.gaps import GapLine, GapPoint, gap_lines
from orchestrator.explorer.line import ATTACK, LINE, Line
from orchestrator.explorer.query import Query


def halving(query: Query, lines: Sequence[Line]) -> float:
    """The smallest epsilon at which an attack leaves BP, or else the first rule, at most half of its images.

    There the attack is strong and not everything is lost. The exact gradient decides where it was run, so the choice
    does not look at what the feedback gradient gives.
    """
    ranked = sorted(lines, key=lambda line: (line.rule != "bp", line.gradient != "exact"))
    for curve in query.curves(ranked):
        attacked = [point for point in curve.points if point.epsilon > 0]
        if attacked:
            return next((point for point in attacked if point.score.value <= 0.5), attacked[-1]).epsilon
    return 0.0


def verdicts(query: Query, lines: Sequence[Line], epsilon: float, label: str) -> list[str]:
    """For each rule under each attack at one epsilon whether it is more robust than BP, and by which gradient.

    The exact gradient decides: what only the model's own feedback shows is masking. A gap counts where its interval,
    corrected over its panel, excludes zero.
    """
    gaps: dict[tuple[str, ...], dict[str, GapLine]] = {}
    for gap in gap_lines(query, lines, "bp"):
        line = query.index.lines[gap.curve.line]
        gaps.setdefault(_without_gradient(line), {})[line.gradient] = gap
    sentences = []
    for found in gaps.values():
        at = {gradient: point for gradient, gap in found.items() if (point := gap.at(epsilon)) is not None}
        if at:
            curve = next(iter(found.values())).curve
            place = f"{style.label(curve.rule_label)} on {curve.title}, {curve.attack_label} at ε = {label}"
            sentences.append(f"{place}: {_verdict(at)}")
    return sentences


def _verdict(at: dict[str, GapPoint]) -> str:
    told = ", ".join(f"{style.points(point.gap)} points under {style.gradient(name)}" for name, point in at.items())
    if "exact" in at:
        decided = at["exact"]
        if decided.clear:
            answer = "yes, more robust than BP" if decided.gap.value > 0 else "no, less robust than BP"
        elif "feedback" in at and at["feedback"].clear and at["feedback"].gap.value > 0:
            answer = "not shown: only the attack that follows the model's own feedback says so, which is masking"
        else:
            answer = "not shown: the gap does not exclude zero"
    elif "none" in at:
        clear, value = at["none"].clear, at["none"].gap.value
        answer = ("it keeps more than BP" if value > 0 else "it keeps less than BP") if clear else "no difference shown"
    else:
        answer = "not known: run this attack with gradient: exact"
    seeds = min(point.gap.seeds for point in at.values())
    return f"{answer} ({told}; {style.counted(seeds, 'seed')})."


def _without_gradient(line: Line) -> tuple[str, ...]:
    return tuple(value for name, value in zip(LINE, line.key, strict=True) if name != ATTACK[2])
