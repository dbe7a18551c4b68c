"""The evidence on models, which is put together for many points at once, beside a loop over the rows of the store."""

from __future__ import annotations

import numpy as np
import pytest
from stores import fill

from orchestrator.commands.cli import main
from orchestrator.results.live_store import LiveStore
from orchestrator.store import Store


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store in which everything that may be missing is missing somewhere."""
    folder = fill(tmp_path_factory.mktemp("evidence") / "store")
    # One point whose seeds have other images, and one that only some seeds have.
    fill(folder, {("usf", "exact"): {0.2: 0.5}}, seeds=(0,), images=70, draw=1)
    fill(folder, {("usf", "exact"): {0.2: 0.5, 0.3: 0.5}}, seeds=(1, 2), images=50, draw=2)
    # Changes of pixels and gradients that were not recorded, by one seed or by all; gradients that were not finite.
    bp = {("bp", "feedback"): {0.1: 0.5, 0.2: 0.0}}
    fill(folder, bp, draw=3, attack="bim", outcome={"linf": None}, nonfinite_grad=6)
    fill(folder, bp, seeds=(0, 1), draw=4, attack="mim", outcome={"zero_grad": None})
    fill(folder, bp, seeds=(2,), draw=5, attack="mim", outcome={"zero_grad": True}, nonfinite_grad=3)
    fill(folder, {("bp", "none"): {0.1: 0.9}}, draw=6, attack="noise")
    fill(folder, draw=7, task="hashing", metric="map", attack="hag", dataset="cifar10")
    # Two fine-tunes of one model, for some of its seeds.
    fill(folder, {("fa", "exact"): {0.0: 1.0, 0.1: 0.5}}, draw=8, finetune_job="f")
    fill(folder, {("fa", "exact"): {0.2: 1.0, 0.3: 0.5}}, seeds=(1, 2), draw=9, finetune_job="g")
    return folder


def by_hand(results, outcomes, model, run):
    """What a run must hold, from the rows of each of its seeds, read one by one."""
    images, robust, changes, zeros, shares = [], [], [], [], []
    for seed in run.seeds:
        chosen = results[(results.finetune_job == model.jobs[seed]) & (results.seed == seed)]
        for column in ("task", "dataset", "rule"):
            chosen = chosen[chosen[column] == model.setting[column]]
        chosen = chosen[(chosen.attack == run.attack) & (chosen.gradient == run.gradient)]
        (row,) = chosen[chosen.epsilon == run.epsilon].itertuples()
        of_cell = sorted(outcomes[outcomes.cell == row.cell].itertuples(), key=lambda outcome: outcome.image)
        images.append([outcome.image for outcome in of_cell])
        robust.append({o.image: o.ap if row.metric == "map" else float(o.robust) for o in of_cell})
        changes.append([o.linf for o in of_cell if robust[-1][o.image] > 0])
        zeros.append([o.zero_grad for o in of_cell])
        shares.append(row.nonfinite_grad / row.n if row.nonfinite_grad is not None else np.nan)
    shared = sorted(set.intersection(*map(set, images)))
    known = all(change is not None and change == change for seed in changes for change in seed)
    same = all(of_seed == shared for of_seed in images)
    recorded = same and run.attack != "noise" and all(zero is not None for seed in zeros for zero in seed)
    return (
        shared,
        [[of_seed[image] for image in shared] for of_seed in robust],
        [np.mean(seed) if seed else np.nan for seed in changes] if known else None,
        zeros if recorded else None,
        None if np.isnan(shares).any() else np.mean(shares),
    )


@pytest.mark.parametrize("seeds", [(), (0, 2)])
def test_the_evidence_on_models_is_that_of_a_loop_over_rows(folder, seeds):
    store = Store(str(folder))
    results, outcomes = store.results(), store.outcomes()
    results = results[results.seed.isin(seeds or (0, 1, 2))].astype(object).where(lambda frame: frame.notna(), None)
    outcomes = outcomes.astype(object).where(lambda frame: frame.notna(), None)
    snapshot = LiveStore(str(folder)).snapshot
    points = 0
    for model in snapshot.computed(seeds).models.known():
        for run in model.evidence.runs:
            points += len(run.seeds)
            images, robust, moved, zero, nonfinite = by_hand(results, outcomes, model, run)
            assert run.images.tolist() == images
            assert run.outcomes.tolist() == np.array(robust, dtype=np.float32).tolist()
            assert run.score == float(run.outcomes.mean(dtype=np.float64)) == pytest.approx(np.mean(robust))
            assert (run.moved is None) == (moved is None)
            assert moved is None or run.moved.tolist() == pytest.approx(moved, nan_ok=True)
            assert (run.no_gradient is None) == (zero is None)
            assert zero is None or run.no_gradient.tolist() == zero
            assert run.nonfinite == (None if nonfinite is None else pytest.approx(nonfinite))
            assert (run.steps, run.step_size, run.norm) == (5, run.epsilon / 2, "linf")
            assert model.labels[run.epsilon] == f"{run.epsilon:g}"
    assert points == len(results)


def test_what_is_raised_on_some_lines_is_what_is_raised_on_them_among_all(folder, tmp_path):
    """Alone, as on a page of one attack, and where the models were judged before."""
    masked = fill(tmp_path / "masked", {("usf", "feedback"): {0.0: 1.0, 0.1: 0.8, 0.2: 0.9, 0.5: 0.8, 1.0: 0.3}})
    for draw, gradient, shares, more in (
        (1, "exact", {0.1: 0.3, 0.2: 0.9, 0.5: 0.9, 1.0: 0.2}, {"outcome": {"linf": 0.01}}),
        (2, "exact", {0.1: 0.0, 0.2: 0.5}, {"attack": "fgsm", "steps": 1, "nonfinite_grad": 2}),
        (3, "transfer", {0.1: 0.1, 0.2: 0.2}, {}),
        (4, "none", {0.1: 0.2, 0.2: 0.3}, {"attack": "square", "steps": 0}),
        (5, "none", {0.1: 0.1, 0.2: 0.2}, {"attack": "noise", "steps": 0}),
        (6, "exact", {0.1: 0.4, 0.2: 0.3}, {"attack_params": '{"steps":10}', "steps": 10}),
    ):
        fill(masked, {("usf", gradient): shares}, draw=draw, **more)
    flags = set()
    for store in (folder, masked):
        data = LiveStore(str(store), at_once=True)
        lines = data.snapshot.index.lines
        judged, alone = (data.snapshot.computed(seeds).models for seeds in ((), (0, 1, 2)))
        expected = {
            (finding.line, finding.epsilon, check)
            for judgements in judged.judged({line.model: None for line in lines})
            for judgement in judgements
            for check, findings in judgement.findings.items()
            for finding in findings
            if finding.finding.raised and finding.line is not None and finding.epsilon is not None
        }
        assert {place for line in lines for place in alone.raised([line])} == set(alone.raised(lines)) == expected
        assert set(judged.raised(lines)) == expected
        for line in lines:
            assert set(judged.raised([line])) == {place for place in expected if place[0] == line.number}
        flags |= {check for _, _, check in expected}
    assert flags >= {"G1", "G4c", "T1", "T1b", "B1", "B1b", "B2", "S1", "S2", "S2b", "S3", "S5", "U1", "U2"}


def test_two_fine_tunes_of_a_seed_are_two_models(folder):
    snapshot = LiveStore(str(folder)).snapshot
    known = [model for model in snapshot.computed().models.known() if model.setting["rule"] == "fa"]
    assert [model.jobs for model in known] == [{0: "f", 1: "f", 2: "f"}, {1: "g", 2: "g"}]


def test_the_audit_names_the_settings_in_which_models_differ(tmp_path, capsys):
    for place, k in enumerate((20, 1000)):
        fill(tmp_path / "store", draw=place, task="hashing", task_params=f'{{"k":{k}}}', metric="map")
    assert main(["audit", str(tmp_path / "store"), "--no-probes"]) == 0
    said = capsys.readouterr().out
    assert "usf on hashing: smallcnn / digits / task k=20:" in said
    assert "usf on hashing: smallcnn / digits / task k=1000:" in said
