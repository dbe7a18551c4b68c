"""Every check of the audit is raised by a case that is made for it, and by its counterpart not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from signsym_core.auditing import checks, masking
from signsym_core.auditing.checks import CHECKS
from signsym_core.auditing.evidence import Evidence, Run, paired
from signsym_core.auditing.probes import Probe
from signsym_core.auditing.verdict import judge
from signsym_core.statistics.intervals import wilson

IMAGES = 400


def outcomes(share, seeds=3, images=IMAGES):
    """The first `share` of the images survive, in every seed: a stronger attack breaks all that a weaker one does."""
    return np.tile((np.arange(images) < share * images).astype(float), (seeds, 1))


def run(
    share,
    *,
    attack="pgd",
    gradient="feedback",
    epsilon=0.1,
    steps=20,
    seeds=3,
    images=IMAGES,
    step=None,
    moved=1,
    zero=None,
    nonfinite=None,
):
    kept = outcomes(share, seeds, images) if np.isscalar(share) else np.asarray(share, dtype=float)
    return Run(
        attack=attack,
        parameters=f"steps {steps}",
        gradient=gradient,
        epsilon=epsilon,
        steps=steps,
        step_size=(2.5 * epsilon / max(steps, 1)) if step is None else step,
        seeds=tuple(range(len(kept))),
        images=np.arange(kept.shape[1]),
        outcomes=kept,
        moved=np.full(len(kept), moved * epsilon),
        no_gradient=None if zero is None else np.tile(zero, (len(kept), 1)),
        nonfinite=nonfinite,
    )


def probe(n=100, **changes):
    """The probe of a model whose backward pass is its gradient."""
    values = {name: np.ones(n) for name in ("rho", "direction", "repeat", "efficiency", "cosine", "norm_ratio")}
    values |= {"broken": np.zeros(n, bool), "unsteady": np.zeros(n, bool)}
    return Probe(**values | {name: np.broadcast_to(value, n) for name, value in changes.items()})


def evidence(*runs, probes=(), chance=0.1, converted=True):
    return Evidence(runs=runs, chance=chance, probes=probes, converted=converted)


def without(share_lost, before):
    """Outcomes like `before`, but that the last `share_lost` of the images are lost and the first are not."""
    kept = before.copy()
    kept[:, -int(share_lost * before.shape[1]) :] = 0
    return kept


ALL = np.ones((3, IMAGES))

#: For each check, evidence that raises it and evidence that does not.
CASES = {
    "G1": (
        evidence(run(0.5), run(0.2, gradient="exact")),
        evidence(run(0.21), run(0.2, gradient="exact"), run(0.9, steps=1), run(0.5, steps=1, gradient="exact")),
    ),
    "G2": (evidence(probes=(probe(rho=2.6),)), evidence(probes=(probe(rho=1.05), probe(rho=0.97)))),
    "G2b": (evidence(probes=(probe(direction=0.68),)), evidence(probes=(probe(direction=0.99),))),
    "G3": (evidence(probes=(probe(efficiency=0.5),)), evidence(probes=(probe(efficiency=0.97),))),
    "G4": (evidence(probes=(probe(broken=np.arange(100) == 7),)), evidence(probes=(probe(),))),
    "G5": (evidence(probes=(probe(repeat=0.56),)), evidence(probes=(probe(repeat=0.9999),))),
    "G5b": (evidence(probes=(probe(unsteady=np.arange(100) == 7),)), evidence(probes=(probe(),))),
    "T1": (
        evidence(run(0.5), run(0.3, gradient="transfer")),
        evidence(run(0.2), run(1 - outcomes(0.6), gradient="transfer")),
    ),
    # The other attack breaks other images, and fewer.
    "T1b": (
        evidence(run(0.2), run(1 - outcomes(0.1), gradient="transfer")),
        evidence(run(0.2), run(0.6, gradient="transfer")),
    ),
    "B1": (
        evidence(run(ALL), run(0.9, attack="square", gradient="none", steps=0)),
        evidence(run(0.2), run(1 - outcomes(0.1), attack="square", gradient="none", steps=0)),
    ),
    "B1b": (
        evidence(run(0.2), run(1 - outcomes(0.1), attack="square", gradient="none", steps=0)),
        evidence(run(0.2), run(0.6, attack="square", gradient="none", steps=0)),
    ),
    "G4b": (
        evidence(run(0.5, zero=np.arange(IMAGES) == 7)),
        evidence(run(0.5, zero=np.zeros(IMAGES, bool))),
    ),
    "G4c": (evidence(run(0.5, nonfinite=0.01)), evidence(run(0.5, nonfinite=0.0))),
    "G5c": (
        evidence(run(0.9, attack="none", gradient="none", epsilon=0.0), run(0.8, epsilon=0.0)),
        # A few images at the border of two classes may go to either side where kernels round otherwise.
        evidence(run(0.9, attack="none", gradient="none", epsilon=0.0), run(0.8975, epsilon=0.0)),
    ),
    "E1": (evidence(run(0.5), run(0.3, gradient="eot")), evidence(run(0.5), run(0.495, gradient="eot"))),
    "B2b": (
        evidence(run(0.5, gradient="exact"), run(0.5, attack="noise", gradient="none", steps=0)),
        evidence(run(0.2, gradient="exact"), run(0.9, attack="noise", gradient="none", steps=0)),
    ),
    "B2": (
        evidence(run(ALL, gradient="exact"), run(without(0.05, ALL), attack="noise", gradient="none", steps=0)),
        evidence(run(0.2, gradient="exact"), run(0.9, attack="noise", gradient="none", steps=0)),
    ),
    "S1": (
        evidence(run(0.5, gradient="exact"), run(0.4, gradient="exact", steps=1)),
        evidence(run(0.3, gradient="exact"), run(0.4, gradient="exact", steps=1)),
    ),
    "S2": (
        evidence(run(0.5, gradient="exact", steps=5, step=0.1 / 30)),
        evidence(run(0.5, gradient="exact", steps=5, step=0.1 / 4)),
    ),
    "S2b": (evidence(run(0.5, gradient="exact", moved=0.5)), evidence(run(0.5, gradient="exact", moved=0.99))),
    "S3": (
        evidence(run(0.5, gradient="exact"), run(0.4, gradient="exact", steps=40)),
        # Five steps are too few, and twenty are no worse than forty.
        evidence(*[run(k, gradient="exact", steps=n) for k, n in ((0.6, 5), (0.405, 20), (0.4, 40))]),
    ),
    "S5": (
        evidence(run(0.4, gradient="exact"), run(0.5, gradient="exact", epsilon=0.2)),
        evidence(run(0.4, gradient="exact"), run(0.2, gradient="exact", epsilon=0.2)),
    ),
    "U1": (
        evidence(run(0.2, gradient="exact", epsilon=0.5)),
        evidence(run(0.11, gradient="exact", epsilon=0.5), run(0.9, gradient="exact", epsilon=0.1)),
    ),
    "U2": (evidence(run(0.05, gradient="exact", epsilon=1.0)), evidence(run(0.0, gradient="exact", epsilon=1.0))),
    "R1": (evidence(run(0.5)), evidence(run(0.5, images=1000))),
}


def found(check, of):
    return [each.finding for each in check.look(of)]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_each_check_is_raised_by_its_case_and_not_by_the_counterpart(check):
    raising, silent = CASES[check.id]
    assert any(finding.raised for finding in found(check, raising))
    made = found(check, silent)
    assert made, "a counterpart on which the check is not even made proves nothing"
    assert not any(finding.raised for finding in made)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_a_check_says_its_flag_its_numbers_and_what_it_needs(check):
    for case in CASES[check.id]:
        for finding in found(check, case):
            assert finding.flag == check.flag
            assert finding.words
            assert np.isfinite([finding.first, finding.second]).all()
    assert check.needs
    assert not found(check, evidence())


def test_no_two_checks_have_one_id():
    assert len({check.id for check in CHECKS}) == len(CHECKS) == len(CASES)


def test_models_that_are_judged_together_have_the_findings_of_each_alone(monkeypatch):
    """Also where a batch holds two pairs, so that the pairs of a model are in several."""
    models = [case for pair in CASES.values() for case in pair]
    alone = [checks.findings(model) for model in models]
    monkeypatch.setattr(checks, "AT_ONCE", 2 * 3 * IMAGES)
    assert checks.findings_of(models) == alone
    assert sum(len(members) for by_check in alone for members in by_check.values()) > 100


def test_chance_alone_raises_no_comparison():
    """Two attacks of equal strength that break images independently: the paired interval holds 0 nearly always."""
    generator = np.random.default_rng(0)
    raised = 0
    for _ in range(200):
        one, other = (generator.random((1, 1, 300)) < 0.5 for _ in range(2))
        raised += masking.compared("exact_gradient_breaks", one, other)[0].raised
    assert raised <= 12


def sound(**changes):
    """Runs of a model that is what it seems, with everything that a verdict needs."""
    runs = [run(0.3, gradient=gradient) for gradient in ("feedback", "exact")]
    runs += [run(0.4, gradient=gradient, steps=1) for gradient in ("feedback", "exact")]
    runs += [run(0.5, gradient="transfer"), run(0.0, gradient="exact", epsilon=0.5)]
    return evidence(*runs, probes=(probe(),), **changes)


def test_a_model_on_which_nothing_is_raised_is_sound():
    verdict = judge(sound())
    assert (verdict.kind, verdict.words, verdict.missing) == ("sound", "sound", ())
    # Few images are said, and are no flaw of the model.
    assert any(made.check.id == "R1" and made.finding.raised for made in verdict.made)


@pytest.mark.parametrize(("direction", "kind"), [(1.0, "sound"), (0.2, "undecided")])
def test_an_exact_gradient_that_is_none_explains_no_wrong_one(direction, kind):
    wrong = probe(rho=200.0, direction=0.2, exact_direction=direction)
    verdict = judge(evidence(*sound().runs, probes=(wrong,)))
    assert verdict.kind == kind
    assert {made.check.id for made in verdict.raised} == {"G2", "G2b"}


def test_a_gradient_that_is_missing_where_the_image_is_lost_anyway_hides_nothing():
    lacking = np.tile(np.arange(IMAGES) >= 0.9 * IMAGES, (3, 1))
    of = sound()
    runs = [dataclasses.replace(each, no_gradient=lacking) for each in of.runs]
    for kept, kind in ((0.9, "sound"), (0.95, "undecided")):
        clean = run(kept, attack="none", gradient="none", epsilon=0.0, steps=0)
        assert judge(evidence(*runs, clean, probes=of.probes)).kind == kind


@pytest.mark.parametrize(
    ("kept", "chance", "words"),
    [
        (0.5, 0.5, "clean accuracy 50.0 % is not above chance (50.0 %)"),
        (
            0.6,
            0.5,
            "clean accuracy 60.0 % is not clearly above chance (50.0 %): its interval begins at {} %, and has to",
        ),
        (
            1.0,
            0.9,
            "clean accuracy 100.0 % is not clearly above chance (90.0 %): its interval begins at {} %, and no score",
        ),
    ],
)
def test_why_a_clean_score_is_too_near_to_chance_is_said_in_numbers(kept, chance, words):
    clean = run(kept, attack="none", gradient="none", epsilon=0.0, steps=0)
    n = clean.outcomes.shape[1]
    told = judge(evidence(*sound().runs, clean, probes=(probe(),), chance=chance)).words
    assert words.format(f"{100 * wilson(kept * n, n)[0]:.1f}") in told


def test_masking_is_told_with_its_points_before_weakness():
    of = sound()
    runs = [r for r in of.runs if (r.gradient, r.steps) != ("exact", 20)]
    verdict = judge(
        evidence(*runs, run(0.2, gradient="exact"), run(0.2, gradient="exact", epsilon=0.5), probes=of.probes)
    )
    assert verdict.kind == "masked gradient"
    assert verdict.words == "masked gradient (by 10.0 points at ε = 0.1; G1, U1)"


def test_a_weak_attack_is_called_so():
    of = sound()
    runs = [r for r in of.runs if r.epsilon < 0.5]
    verdict = judge(evidence(*runs, run(0.3, gradient="exact", epsilon=0.5), probes=of.probes))
    assert (verdict.kind, verdict.words) == ("weak attack", "weak attack (U1)")


@pytest.mark.parametrize(
    ("leave_out", "missing"),
    [
        (lambda r: r.gradient == "transfer", ["T1", "T1b"]),
        (lambda r: r.steps == 1, ["S1"]),
        (lambda r: r.epsilon == 0.5, ["U1"]),
        (lambda r: r.gradient == "exact", ["G1", "S1", "S2", "U1"]),
    ],
)
def test_what_is_missing_makes_it_undecided(leave_out, missing):
    of = sound()
    verdict = judge(evidence(*[r for r in of.runs if not leave_out(r)], probes=of.probes))
    assert verdict.kind == "undecided"
    assert [check.id for check in verdict.missing] == missing
    assert verdict.words == f"undecided (missing: {', '.join(missing)})"


def test_without_the_model_itself_it_is_undecided():
    verdict = judge(evidence(*sound().runs))
    assert [check.id for check in verdict.missing] == ["G2", "G2b", "G5"]


def test_without_the_exact_gradient_a_suspicion_is_no_verdict():
    of = sound()
    runs = [r for r in of.runs if r.gradient == "feedback"]
    stronger = run(without(0.5, ALL)[:, ::-1], gradient="transfer")
    verdict = judge(evidence(*runs, stronger, probes=(probe(rho=3.0),)))
    assert verdict.kind == "undecided"
    assert verdict.words == "undecided (missing: G1, S1, S2, U1; raised already: G2, T1b)"


def test_masking_is_decided_whatever_else_is_missing():
    verdict = judge(evidence(run(0.5), run(0.2, gradient="exact")))
    assert (verdict.kind, verdict.overstated, verdict.epsilon) == ("masked gradient", pytest.approx(0.3), 0.1)


def test_a_model_that_is_not_converted_needs_no_other_gradient_and_a_black_box_may_stand_for_a_twin():
    runs = [run(0.3), run(0.4, steps=1), run(0.0, epsilon=0.5)]
    assert judge(evidence(*runs, probes=(probe(),), converted=False)).words == "undecided (missing: T1, T1b)"
    square = run(0.6, attack="square", gradient="none", steps=0)
    assert judge(evidence(*runs, square, probes=(probe(),), converted=False)).kind == "sound"


def test_runs_are_paired_by_seed_and_image():
    one, other = run(0.5), run(0.25)
    shuffled = np.random.default_rng(0).permutation(IMAGES)[:100]
    part = Run(
        attack="pgd",
        parameters="",
        gradient="exact",
        epsilon=0.1,
        seeds=(2, 0),
        images=shuffled,
        outcomes=other.outcomes[[2, 0]][:, shuffled],
    )
    ours, theirs = paired(one, part)
    assert ours.shape == theirs.shape == (2, 100)
    assert (ours == one.outcomes[[0, 2]][:, np.sort(shuffled)]).all()
    assert (theirs == other.outcomes[[0, 2]][:, np.sort(shuffled)]).all()
    assert paired(one, run(0.5, seeds=1)) is not None
    far = Run(
        attack="x", parameters="", gradient="none", epsilon=0.1, seeds=(7,), images=np.arange(3), outcomes=ALL[:1, :3]
    )
    assert paired(one, far) is None


def test_levels_are_those_of_a_verdict():
    assert {check.level for check in CHECKS} == set(checks.Level.__args__)


def test_the_strongest_attack_is_that_on_the_images_that_all_have():
    # On its first 100 images the attack on 400 leaves nothing; on all of them more than the other on those 100.
    late = np.tile((np.arange(400) >= 300).astype(float), (3, 1))
    many, few = run(late, gradient="exact", steps=40), run(0.2, gradient="exact", images=100)
    assert few.score < many.score
    assert evidence(few, many).strongest("exact", 0.1) is many
    # Where they share no image each is judged by its own.
    apart = dataclasses.replace(few, images=few.images + 1000)
    assert evidence(apart, many).strongest("exact", 0.1) is apart
