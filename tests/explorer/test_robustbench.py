"""Entries of RobustBench's leaderboard from a store, by hand."""

from __future__ import annotations

import json

import pytest
from storerows import outcomes, result
from stores import fill

from orchestrator.commands.cli import main
from orchestrator.store import Store, tables

IMAGES = 1000
FIELDS = [
    *("link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture", "eps"),
    *("clean_acc", "reported", "autoattack_acc", "external", "footnote", "unreliable"),
]


def put(store, attack, kept, rule="usf", seed=0, images=IMAGES, **more):
    """A run of an attack at 8/255 on the first `images` that leaves the images `kept`."""
    job = f"{attack}-{rule}-{seed}-{more.get('gradient', '')}-{more.get('attack_params', '')}"
    job = "".join(letter for letter in job if letter.isalnum())[:60]
    about = {"finetune_job": f"{rule}{seed}aaaaaaaa", "rule": rule, "seed": seed, "attack": attack, "gradient": "exact"}
    about |= {"epsilon": 8 / 255, "epsilon_label": "8/255", "dataset": "cifar10"} | more
    rows = [row | {"robust": row["image"] in kept} for row in outcomes(job, images, 0)]
    store.write_table("outcomes", job, rows, tables.OUTCOMES)
    store.write_table("results", job, [result(job, images, len(kept), job=job, **about)], tables.RESULTS)


CLEAN = {"gradient": "none", "epsilon": 0.0, "epsilon_label": "0"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("robustbench")
    store = Store(str(folder / "store"))
    for rule, seed in (("usf", 0), ("usf", 1), ("bp", 0)):
        put(store, "none", range(948), rule, seed, **CLEAN)
        put(store, "autoattack", range(300), rule, seed)
    # Square breaks an image that AutoAttack leaves of one network, and five of another.
    put(store, "square", range(1, 1000), "usf", 1, gradient="none")
    put(store, "square", range(5, 1000), "bp", 0, gradient="none")
    # None of these is the standard one along the exact gradient.
    put(store, "none", range(900), "frsf", 0, **CLEAN)
    put(store, "autoattack", range(200), "frsf", 0, gradient="feedback")
    put(store, "autoattack", range(200), "frsf", 0, attack_params='{"steps":5}')
    assert main(["export", store.uri, "--what", "robustbench", "--out", str(folder / "out")]) == 0
    return {path.relative_to(folder / "out"): json.loads(path.read_text()) for path in (folder / "out").rglob("*.json")}


def test_each_network_with_the_standard_attack_has_an_entry_with_the_fields_of_the_leaderboard(written):
    names = sorted(str(path) for path in written)
    assert names == [
        "cifar10/Linf/bp-smallcnn-seed0-8over255-bp0aaaaa.json",
        "cifar10/Linf/usf-smallcnn-seed0-8over255-usf0aaaa.json",
        "cifar10/Linf/usf-smallcnn-seed1-8over255-usf1aaaa.json",
    ]
    for entry in written.values():
        assert list(entry) == FIELDS
        assert [entry[name] for name in ("link", "name", "authors", "venue", "reported")] == [None] * 5
        assert (entry["clean_acc"], entry["autoattack_acc"], entry["eps"]) == ("94.80", "30.00", "8/255")
        assert (entry["dataset"], entry["additional_data"], entry["number_forward_passes"]) == ("cifar10", False, 1)
    assert {entry["architecture"] for entry in written.values()} == {
        "smallcnn, learning rule uSF",
        "smallcnn, learning rule BP",
    }


def test_what_another_attack_breaks_stands_beside_it_and_above_the_limit_makes_it_unreliable(written):
    by_name = {path.name[:9]: entry for path, entry in written.items()}
    alone, one = (entry for path, entry in sorted(written.items()) if path.name.startswith("usf"))
    five = by_name["bp-smallc"]
    assert [entry["external"] for entry in (alone, one, five)] == [None, "29.90", "29.50"]
    # Without a verdict nothing says that it is reliable; an attack that breaks more says that it is not.
    assert [entry["unreliable"] for entry in (alone, one, five)] == [None, None, True]
    assert "square breaks 0.50 points of the images that it leaves" in five["footnote"]
    assert "1,000 images; seed 0. square" in five["footnote"]
    assert "Audit: undecided" in alone["footnote"]


def test_both_accuracies_are_of_the_images_that_were_attacked(tmp_path):
    store = Store(str(tmp_path / "store"))
    put(store, "none", range(948), **CLEAN)
    put(store, "autoattack", range(300), images=950)
    assert main(["export", store.uri, "--what", "robustbench", "--out", str(tmp_path / "out")]) == 0
    (path,) = (tmp_path / "out").rglob("*.json")
    entry = json.loads(path.read_text())
    assert (entry["clean_acc"], entry["autoattack_acc"]) == ("99.79", "31.58")
    assert "on 950 images" in entry["footnote"]


def test_runs_in_two_arithmetics_have_a_file_each(tmp_path):
    store = Store(str(tmp_path / "store"))
    put(store, "none", range(948), **CLEAN)
    for parameters in ("{}", '{"precision":"tf32"}'):
        put(store, "autoattack", range(300), attack_params=parameters)
    assert main(["export", store.uri, "--what", "robustbench", "--out", str(tmp_path / "out")]) == 0
    assert len([*(tmp_path / "out").rglob("*.json")]) == 2


def test_a_store_without_the_attack_and_a_file_for_a_folder_are_refused(tmp_path, capsys):
    fill(tmp_path / "store", {("bp", "exact"): {0.1: 0.5}}, seeds=(0,))
    command = ["export", str(tmp_path / "store"), "--what", "robustbench", "--out"]
    assert main([*command, str(tmp_path / "out")]) == 2
    assert "expected a clean score and the standard AutoAttack along the exact gradient" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "out.csv")]) == 2
    assert "expected a folder for the entries of RobustBench" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
