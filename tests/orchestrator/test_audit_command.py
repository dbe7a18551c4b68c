"""`signsym audit` and `signsym attack` on small stores, without Ray."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from orchestrator import pages
from orchestrator.commands import audit_grid
from orchestrator.commands.cli import main
from orchestrator.drawing import style
from orchestrator.gridfile.grid import load
from orchestrator.gridfile.stored import keep_grid
from orchestrator.jobs.job import JobContext
from orchestrator.pages.context import context_of
from orchestrator.plan.compile import compile_plan
from orchestrator.plan.estimate import survey_store
from orchestrator.results.live_store import LiveStore
from orchestrator.store import Store, tables
from orchestrator.work import execute

pytestmark = pytest.mark.slow

DATASET = {"name": "digits", "size": 8, "classes": [5, 6, 7], "train_images": 200, "test_images": 90}
GRID = f"""
name: small
seeds: [0, 1]
experiments:
  - task: classification
    dataset: {json.dumps(DATASET)}
    backbone: {{name: smallcnn, width: 4}}
    weights: {{pretrain: {{dataset: {{name: digits, size: 8, train_images: 200}}, epochs: 1}}}}
    rule: [bp, fa]
    finetune: {{epochs: 12, lr: 0.003, head_lr: 0.003}}
    attacks:
      - {{name: pgd, gradient: feedback, epsilon: [0.05, 26/255]}}
"""


def sweep(path, storage, data=Path(".")):
    """What `signsym sweep` does, in this process."""
    store, grid = Store(str(storage)), load(path)
    keep_grid(store, grid.name, grid.text, grid.sets)
    context = JobContext(storage=str(storage), data_root=str(data), git="0", versions="{}")
    done = survey_store(store)
    plan = compile_plan(grid, done.done_cells, done.done_models)
    for key, job in plan.jobs.items():
        execute.execute(key, dict(job.spec), context)
    return plan


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The storage of a sweep without the exact gradient, then of one with everything; and the grid between them."""
    folder = tmp_path_factory.mktemp("audit")
    (folder / "small.yaml").write_text(GRID)
    with pytest.MonkeyPatch.context() as patch:
        # A thousand queries, and fifty steps of APGD, took most of the time of all the tests here.
        patch.setattr(audit_grid, "QUERIES", 100)
        patch.setattr(audit_grid, "FINE", 10)
        sweep(folder / "small.yaml", folder / "bare")
        assert main(["audit", str(folder / "bare"), "--grid", str(folder / "audit.yaml"), "--no-probes"]) == 0
        shutil.copytree(folder / "bare", folder / "full")
        yield folder, sweep(folder / "audit.yaml", folder / "full")


def audit(capsys, storage, *options):
    assert main(["audit", str(storage), *options]) == 0
    return capsys.readouterr().out


def by_rule(capsys, storage, *options):
    found = json.loads(audit(capsys, storage, "--json", *options))
    return {model["rule"]: model for model in found["models"]}, found


def test_without_the_exact_gradient_every_model_is_undecided_and_the_command_is_named(stores, capsys):
    folder, _ = stores
    models, found = by_rule(capsys, folder / "bare")
    for model in models.values():
        assert model["verdict"] == "undecided"
        assert {"G1", "T1", "S1", "U1"} <= {check["id"] for check in model["missing"]}
        assert model["exact"] is None
        assert model["feedback"]["n"] == 90
    # The probes are made already, and for FA they are raised: a suspicion, and no verdict.
    assert "raised already: G2, G2b, G3" in models["fa"]["words"]
    output = audit(capsys, folder / "bare")
    for command in found["commands"]:
        assert command in output
    assert f"signsym audit {folder / 'bare'} --grid audit.yaml" in output
    assert f"signsym sweep audit.yaml --storage {folder / 'bare'} --data-root data" in output


def test_the_grid_it_writes_has_the_stores_own_models_and_trains_nothing(stores):
    folder, plan = stores
    assert {job.kind for job in plan.jobs.values()} == {"attack"}
    given = yaml.safe_load((folder / "audit.yaml").read_text())
    assert [e["seeds"] for e in given["experiments"]] == [[0, 1], [0, 1]]
    # Radii are those of the store, as they were written, with those that the checks ask for.
    assert given["experiments"][0]["attacks"][0]["epsilon"] == [0.05, "26/255", 0.5, 1.0]


def test_with_everything_backpropagation_is_sound_and_feedback_alignment_is_masked(stores, capsys):
    folder, _ = stores
    models, found = by_rule(capsys, folder / "full")
    assert found["notes"] == []
    assert models["bp"]["words"] == "sound"
    fa = models["fa"]
    assert fa["verdict"] == "masked gradient"
    checks = {check["id"]: check for check in fa["checks"]}
    assert checks["G1"]["raised"]
    assert fa["overstated"] == pytest.approx(checks["G1"]["first"] - checks["G1"]["second"])
    assert fa["exact"]["value"] < fa["feedback"]["value"]
    assert fa["exact"]["seeds"] == 2
    output = audit(capsys, folder / "full")
    assert fa["words"] in output
    assert "signsym sweep" not in output


def test_where_an_attack_without_the_gradient_alone_accuses_the_grid_has_one_on_the_ratio_of_logits(
    stores, tmp_path, capsys
):
    folder, _ = stores
    shutil.copytree(folder / "full", tmp_path / "store")
    store = Store(str(tmp_path / "store"))
    results, outcomes = store.results(), store.outcomes()

    def broken(cells, job):
        """Write some cells anew, as Square would leave them that breaks every image but ten."""
        rows = outcomes[outcomes["cell"].isin(cells["cell"])]
        rows = rows.assign(robust=rows["robust"] & (rows["image"] < rows["image"].min() + 10))
        means = rows.groupby("cell")["robust"].mean()
        earlier = cells["finished_at"] - pd.Timedelta(days=1)
        table = cells.assign(value=cells["cell"].map(means), job=job, finished_at=earlier)
        for name, frame, schema in (("outcomes", rows, tables.OUTCOMES), ("results", table, tables.RESULTS)):
            plain = frame.astype(object)
            store.write_table(name, job, plain.where(plain.notna(), None).to_dict("records"), schema)

    bp = results[results["rule"] == "bp"]
    broken(bp[bp["attack"] == "square"], "square")
    models, found = by_rule(capsys, tmp_path / "store", "--no-probes")
    assert models["bp"]["words"].startswith("masked gradient (by")
    assert [check["id"] for check in models["bp"]["checks"] if check["raised"]][:1] == ["B1"]
    assert (models["bp"]["may_be_the_loss"], models["fa"]["may_be_the_loss"]) == (True, False)
    output = audit(capsys, tmp_path / "store", "--no-probes")
    assert "APGD on the ratio of logits decides that of bp on smallcnn(width=4)" in output
    assert all(command in output for command in found["commands"])
    page = pages.build(context_of(LiveStore(str(tmp_path / "store")), "?p=flags"))
    rows = next(block for block in page.blocks if getattr(block, "name", "") == "verdicts").rows
    doubted = {names[0]: cells[0].lines[0].endswith("), or a poor loss") for names, cells in rows}
    assert doubted == {"BP": True, "FA": False}
    audit(capsys, tmp_path / "store", "--no-probes", "--grid", str(tmp_path / "audit.yaml"))
    losses = {
        model.rule.name: {
            choice.attack.loss: (choice.gradient, [epsilon.value for epsilon in radii])
            for choice, radii in groups
            if choice.attack.name == "apgd"
        }
        for model, groups in load(tmp_path / "audit.yaml").models.items()
    }
    # Three classes have no targets besides the next one.
    assert losses == {
        "bp": dict.fromkeys(("ce", "dlr"), ("exact", [0.05, 26 / 255, 0.5, 1.0])),
        "fa": {"ce": ("exact", [0.05, 26 / 255, 0.5, 1.0])},
    }
    # With such an attack that breaks as much, nothing is left of the accusation.
    apgd = bp[(bp["attack"] == "apgd")]
    for name in ("cell", "job"):
        apgd = apgd.assign(**{name: apgd[name] + "m"})
    copies = outcomes[outcomes["cell"].isin(apgd["cell"].str[:-1])]
    outcomes = pd.concat([outcomes, copies.assign(cell=copies["cell"] + "m")])
    broken(apgd.assign(attack_params='{"loss":"dlr","steps":10}'), "margins")
    models, _ = by_rule(capsys, tmp_path / "store", "--no-probes")
    assert models["bp"]["verdict"] != "masked gradient"
    assert not models["bp"]["may_be_the_loss"]


def test_several_stores_are_audited_as_if_one_sweep_had_made_them(stores, tmp_path, capsys):
    folder, _ = stores
    _, whole = by_rule(capsys, folder / "full", "--data-root", str(tmp_path))
    jobs = {model["rule"]: set(model["finetune_jobs"].values()) for model in whole["models"]}
    for rule, other in (("bp", "fa"), ("fa", "bp")):
        shutil.copytree(folder / "full", tmp_path / rule)
        for job in jobs[other]:
            shutil.rmtree(tmp_path / rule / "models" / job)
        for path in sorted((tmp_path / rule / "results").glob("*.parquet")):
            if pd.read_parquet(path)["rule"].iloc[0] == other:
                path.unlink()
    both = [str(tmp_path / rule) for rule in ("bp", "fa")]
    found = json.loads(audit(capsys, *both, "--json", "--data-root", str(tmp_path)))
    assert found["models"] == whole["models"]
    assert found["storage"] == ", ".join(both)
    assert [command.split()[2] for command in found["commands"] if " audit " in command] == both
    assert main(["audit", *both, "--no-probes", "--grid", str(tmp_path / "grid.yaml")]) == 2
    assert "--grid: expected one store" in capsys.readouterr().err
    assert not (tmp_path / "grid.yaml").exists()


def test_without_probes_or_without_data_what_the_rows_do_not_say_is_undecided(stores, capsys, monkeypatch):
    folder, _ = stores
    models, _ = by_rule(capsys, folder / "full", "--no-probes")
    # Backpropagation's own backward pass is autograd's, which no probe has to show.
    assert models["bp"]["words"] == "sound (not probed)"
    assert models["fa"]["verdict"] == "masked gradient"

    def gone(described, root, storage, records):
        raise FileNotFoundError(f"no images below {root}")

    monkeypatch.setattr("orchestrator.work.data.data_set", gone)
    models, found = by_rule(capsys, folder / "full", "--data-root", "nowhere")
    assert models["bp"]["words"] == "sound (not probed)"
    assert found["notes"][0].endswith("not probed: no images below nowhere")


def test_a_storage_that_is_none_or_has_no_result_is_refused(tmp_path, capsys):
    assert main(["audit", str(tmp_path / "none")]) == 2
    assert "signsym sweep GRID --storage" in capsys.readouterr().err
    store = Store(str(tmp_path / "store"))
    store.write("grids/small-1.yaml", GRID.encode())
    assert main(["audit", str(tmp_path / "store")]) == 2
    assert "has a result yet" in capsys.readouterr().err
    assert main(["audit", "nosuch://bucket/x"]) == 2
    assert "cannot be opened" in capsys.readouterr().err


def test_a_broken_file_is_named_and_hides_nothing_else(stores, capsys, tmp_path):
    folder, _ = stores
    place = tmp_path / "copy"
    for name in ("grids", "results", "outcomes"):
        (place / name).mkdir(parents=True)
        for file in (folder / "full" / name).iterdir():
            (place / name / file.name).write_bytes(file.read_bytes())
    (place / "results/half.parquet").write_bytes(b"PAR1")
    models, found = by_rule(capsys, place, "--no-probes")
    assert models["fa"]["verdict"] == "masked gradient"
    assert any("results/half.parquet" in note for note in found["notes"])


def known(storage):
    """The evidence on every model of a store."""
    snapshot = LiveStore(str(storage)).snapshot
    return list(snapshot.computed().models.known())


def add(storage, results, outcomes):
    """Copy the rows of a store, changed, into it as one more file."""
    store = Store(str(storage))
    for name, frame, schema in (("results", results, tables.RESULTS), ("outcomes", outcomes, tables.OUTCOMES)):
        frame = frame.assign(cell=frame["cell"] + "x").astype(object)
        rows = frame.where(frame.notna(), None).to_dict("records")
        store.write_table(name, "more", rows, schema)


@pytest.fixture
def copied(stores, tmp_path):
    """A copy of the full store."""
    folder, _ = stores
    for name in ("results", "outcomes"):
        shutil.copytree(folder / "full" / name, tmp_path / "copied" / name)
    return tmp_path / "copied"


def test_two_fine_tunes_of_one_seed_are_two_models(stores, copied):
    folder, _ = stores
    before = known(folder / "full")
    results, outcomes = Store(str(copied)).results(), Store(str(copied)).outcomes()
    again = results[results["seed"] == 0]
    later = again["finished_at"] + pd.Timedelta(days=1)
    rows = outcomes[outcomes["cell"].isin(again["cell"])]
    add(copied, again.assign(finetune_job="another", finished_at=later), rows)
    both = known(copied)
    assert len(before) == 2
    assert [(model.setting["rule"], len(model.jobs)) for model in both] == [("bp", 2), ("bp", 1), ("fa", 2), ("fa", 1)]
    assert [model.jobs for model in both[1::2]] == [{0: "another"}] * 2
    for one, twice in zip(before, both[::2], strict=True):
        assert one.jobs == twice.jobs
        assert [run.score for run in one.evidence.runs] == [run.score for run in twice.evidence.runs]


def test_of_a_cell_with_fewer_images_the_larger_one_is_taken_and_runs_pair_by_image(copied):
    results, outcomes = Store(str(copied)).results(), Store(str(copied)).outcomes()
    few = results[results["attack"] == "pgd"]
    rows = outcomes[outcomes["cell"].isin(few["cell"])].groupby("cell").head(10)
    means = rows.groupby("cell")["robust"].mean()
    add(copied, few.assign(n=10, value=few["cell"].map(means)), rows)
    for model in known(copied):
        assert {run.outcomes.shape for run in model.evidence.runs} == {(2, 90)}


def test_seeds_with_other_images_are_compared_on_those_that_both_have(copied):
    store = Store(str(copied))
    results, outcomes = store.results(), store.outcomes()
    pgd = results[(results["attack"] == "pgd") & (results["seed"] == 1)]
    kept = outcomes[~outcomes["cell"].isin(pgd["cell"]) | (outcomes["image"] % 2 == 0)]
    counted = kept.groupby("cell")["robust"]
    results = results.assign(n=results["cell"].map(counted.size()), value=results["cell"].map(counted.mean()))
    for name, frame, schema in (("outcomes", kept, tables.OUTCOMES), ("results", results, tables.RESULTS)):
        shutil.rmtree(copied / name)
        plain = frame.astype(object)
        store.write_table(name, "all", plain.where(plain.notna(), None).to_dict("records"), schema)
    for model in known(copied):
        for run in model.evidence.runs:
            cells = results[(results["rule"] == model.setting["rule"]) & (results["attack"] == run.attack)]
            cells = cells[(cells["gradient"] == run.gradient) & (cells["epsilon"] == run.epsilon)]
            cells = cells[cells["attack_params"] == run.parameters]
            images = set.intersection(*(set(kept[kept["cell"] == cell]["image"]) for cell in cells["cell"]))
            assert set(run.images.tolist()) == images
            assert len(images) == (90 if run.attack != "pgd" else len([i for i in run.images if i % 2 == 0]))
            for seed, x in zip(run.seeds, run.outcomes, strict=True):
                rows = kept[kept["cell"] == cells[cells["seed"] == seed]["cell"].item()].set_index("image")
                assert (rows.loc[run.images, "robust"].to_numpy(float) == x).all()


def test_the_audit_and_the_flags_page_find_the_same(stores, capsys):
    folder, _ = stores
    models, _ = by_rule(capsys, folder / "full", "--no-probes")
    data = LiveStore(str(folder / "full"))
    page = pages.build(context_of(data, "?p=flags"))
    words = {row["rule"]: row["words"] for row in page.blocks[0].table.rows}
    assert {style.label(rule): model["words"] for rule, model in models.items()} == words
    raised = {(row["rule"], row["flag"]) for row in page.blocks[1].table.rows if row["state"] == "raised"}
    for rule, model in models.items():
        for check in model["checks"]:
            assert ((style.label(rule), check["flag"]) in raised) == check["raised"], check


# signsym attack


def words(folder, rule, *more, seed=0):
    store = Store(str(folder / "full"))
    job = next(k for k, r in store.models()[0].items() if _is(r["spec"], rule, seed))
    weights = folder / "full/models" / job / "model.safetensors"
    backbone, dataset = "{name: smallcnn, width: 4}", json.dumps(DATASET)
    return ["attack", "--weights", str(weights), "--backbone", backbone, "--dataset", dataset, "--rule", rule, *more]


def _is(spec, rule, seed):
    return spec["kind"] == "finetune" and spec["rule"]["name"] == rule and spec["seed"] == seed


def test_a_checkpoint_gets_the_numbers_that_a_sweep_gives_it(stores, capsys, tmp_path):
    folder, _ = stores
    out = tmp_path / "rows.csv"
    twin = words(folder, "bp")[2]
    arguments = words(folder, "fa", "--epsilon", "0.05", "26/255", "0.5", "--twin", twin, "--out", str(out))
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "verdict: masked gradient (by" in output
    # The numbers that were written: before 3.0 pandas reads a CSV's with another last bit.
    rows = pd.read_csv(out, float_precision="round_trip")
    results = Store(str(folder / "full")).results()
    results = results[(results["rule"] == "fa") & (results["seed"] == 0)]
    compared = rows.merge(results, on=["attack", "attack_params", "gradient", "epsilon"], suffixes=("", "_sweep"))
    # Clean; noise, FGSM and APGD with two gradients, PGD with three, at three radii; Square at those below 0.5.
    assert len(compared) == len(rows) == 1 + 3 * (1 + 2 + 2 + 3) + 2
    assert (compared["value"] == compared["value_sweep"]).all()
    assert (compared["steps"] == compared["steps_sweep"]).all()


def test_a_plain_state_dict_of_torch_is_read_too_and_what_is_asked_is_what_runs(stores, capsys, tmp_path):
    folder, _ = stores
    arguments = words(folder, "bp", "--attack", "{name: pgd, steps: 3}", "--gradient", "exact", "--epsilon", "0.1")
    state = {n.removeprefix("network."): t for n, t in load_file(arguments[2]).items() if "_extra_state" not in n}
    torch.save({"state_dict": state}, tmp_path / "mine.pth")
    assert main(arguments) == 0
    expected = capsys.readouterr().out
    arguments[2] = str(tmp_path / "mine.pth")
    assert main(arguments) == 0
    assert capsys.readouterr().out == expected
    assert "pgd(steps=3)" in expected
    assert "fgsm" not in expected
    assert "undecided (missing: G1, T1, T1b, S1, U1)" in expected
    # What only measures is told, and is not the one-step attack that S1 asks for.
    asked = arguments.index("--attack")
    assert main([*arguments[: asked + 2], "--attack", "geometry", *arguments[asked + 2 :]]) == 0
    output = capsys.readouterr().out
    assert "geometry" in output
    assert "undecided (missing: G1, T1, T1b, S1, U1)" in output


def test_each_attack_has_the_gradient_the_images_and_the_radii_that_it_asks_for(stores, tmp_path):
    folder, _ = stores
    asked = [
        "{name: pgd, steps: 1, gradient: feedback, epsilon: 0.1, images: 10}",
        "{name: pgd, steps: 1, gradient: exact, epsilon: 0.2, images: 20}",
        "{name: [fgsm, noise], epsilon: [0.1, 0.3]}",
        "{name: pgd, steps: [1, 2], gradient: exact, epsilon: 0.1}",
    ]
    arguments = [word for item in asked for word in ("--attack", item)]
    # Under BP both gradients are one, and computed once.
    assert main(words(folder, "bp", *arguments, "--epsilon", "0.4", "--out", str(tmp_path / "rows.csv"))) == 0
    rows = pd.read_csv(tmp_path / "rows.csv", keep_default_na=False)
    one = '{"steps":1}'
    assert [
        (*row,) for row in rows[["attack", "attack_params", "gradient", "epsilon", "n"]].itertuples(index=False)
    ] == [
        ("none", "{}", "none", 0.0, 90),
        ("pgd", one, "feedback", 0.1, 10),
        ("pgd", one, "exact", 0.2, 20),
        *(("fgsm", "{}", gradient, radius, 90) for gradient in ("feedback", "exact") for radius in (0.1, 0.3)),
        *(("noise", "{}", "none", radius, 90) for radius in (0.1, 0.3)),
        ("pgd", one, "exact", 0.1, 90),
        ("pgd", '{"steps":2}', "exact", 0.1, 90),
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--attack", "{steps: 3}"], "expected the name of an attack"),
        (["--attack", "{name: pgd, gradient: [exact, transfer]}"], "gradient transfer needs --twin FILE"),
        (["--attack", "pgdd"], "did you mean 'pgd'"),
        (["--attack", "{name: pgd, stepz: 3}"], "stepz"),
        (["--attack", "hag"], "does not fit classification"),
        (["--attack", "[pgd, fgsm]"], "expected an attack"),
        (["--epsilon", "2"], "--epsilon: expected an epsilon: a number in [0, 1]"),
        (["--epsilon", "-0.1"], "--epsilon: expected an epsilon: a number in [0, 1]"),
        (["--epsilon", "many"], "--epsilon: expected an epsilon: a number in [0, 1]"),
        (["--epsilon", "[0.1]"], "--epsilon: expected an epsilon: a number in [0, 1]"),
        (["--gradient", "exakt"], "did you mean 'exact'"),
        (["--gradient", "transfer"], "--twin FILE"),
        (
            ["--twin", "twin.pth", "--attack", "{name: pgd, gradient: transfer, surrogate: {rule: usf}}"],
            "expected no surrogate for 'pgd': it is the model of --twin",
        ),
        (["--rule", "usff"], "did you mean 'usf'"),
        (["--rule", "usf"], "with the checkpoint's rule first: --rule names it, such as --rule fa"),
        (["--backbone", "smallcnn"], "does not fit the network"),
        (["--dataset", "digits"], "fc.weight has 3 outputs where the data set has 10 classes"),
        (["--images", "0"], "--images"),
        (["--weights", "none.pth"], "none.pth does not exist"),
        (["--out", "no/such/folder/x.csv"], "no/such/folder"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_computed(stores, capsys, monkeypatch, tmp_path, more, message):
    folder, _ = stores
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signsym_core.attack", lambda *_, **__: pytest.fail("computed something"))
    assert main(words(folder, "fa", *more)) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not list(tmp_path.iterdir())


def test_a_pickle_is_not_opened(stores, capsys, tmp_path):
    folder, _ = stores

    class Harm:
        def __reduce__(self):
            return (Path(tmp_path / "harmed").touch, ())

    torch.save({"weight": Harm()}, tmp_path / "harm.pth")
    arguments = words(folder, "bp")
    arguments[2] = str(tmp_path / "harm.pth")
    assert main(arguments) == 2
    assert "cannot be read as a state dict" in capsys.readouterr().err
    assert not (tmp_path / "harmed").exists()


def test_weights_with_numbers_that_are_none_are_refused(stores, capsys, tmp_path):
    folder, _ = stores
    arguments = words(folder, "bp")
    state = load_file(arguments[2])
    state["network.fc.bias"][:] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    arguments[2] = str(tmp_path / "nan.safetensors")
    assert main(arguments) == 2
    assert "entries that are not finite" in capsys.readouterr().err


def test_the_audits_attacks_are_all_that_the_checks_need():
    for task in ("classification", "hashing"):
        named = {attack["name"] for attack in audit_grid.attacks(task, [0.1])}
        assert named == ({"fgsm", "pgd", "apgd", "noise", "square"} if task == "classification" else {"hag", "noise"})
        # No square where every image can be grey.
        assert {a["name"]: a["epsilon"] for a in audit_grid.attacks("classification", ["1/4", 0.5])}["square"] == [
            "1/4"
        ]
