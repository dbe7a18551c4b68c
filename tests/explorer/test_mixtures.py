"""Scores that mix results of other arithmetic or another kind of device: pages, exports and audits say so."""

from __future__ import annotations

import pandas as pd
import pytest
from stores import fill, page

from orchestrator.commands.cli import main
from orchestrator.drawing.blocks import Words
from orchestrator.results.live_stores import opened

CPU = {"device": "cpu x 2", "precision": "float32"}
GPU = {"device": "NVIDIA H200", "precision": "tf32"}
MODULES = (("mine", "3fa9"), ("mine", "77ab"), ("yours", "0000"))
SHARES = {("bp", "exact"): {0.1: 0.4}, ("usf", "exact"): {0.1: 0.6}}


def computed(fine_tune, attack):
    return {f"finetune_{name}": value for name, value in fine_tune.items()} | attack


def mixtures(folder, search=""):
    words = [each for each in page(folder, search).blocks if isinstance(each, Words) and each.tone == "warning"]
    return [
        text
        for each in words
        for text in each.sentences
        if " mix models that were " in text or " mix results of " in text
    ]


def test_seeds_that_were_fine_tuned_in_other_arithmetic_are_told_apart_where_they_are_averaged(tmp_path, capsys):
    folder = fill(tmp_path / "store", SHARES, seeds=(0,), **computed(CPU, CPU))
    fill(folder, SHARES, seeds=(1, 2), **computed(GPU, GPU))
    told = (
        "Scores and gaps of smallcnn / digits mix models that were fine-tuned in float32 on a CPU (bp, usf; seed 0) "
        "and in tf32 on NVIDIA H200 (bp, usf; seeds 1, 2)"
    )
    for search in ("", "?p=gap", "?p=tables", "?p=tables&t=worst", "?p=flags", "?p=cell"):
        (sentence,) = mixtures(folder, search)
        assert sentence.startswith(told), search
    for what in ("curves", "worst", "results"):
        assert main(["export", str(folder), "--what", what, "--out", str(tmp_path / f"{what}.csv")]) == 0
        assert told in capsys.readouterr().out
    both = {"float32 on a CPU, tf32 on NVIDIA H200"}
    assert all(
        set(pd.read_csv(tmp_path / f"{what}.csv")[column]) == both
        for what in ("curves", "worst")
        for column in ("fine_tuned", "attacked")
    )
    main(["audit", str(folder), "--no-probes"])
    assert told in capsys.readouterr().out
    assert main(["figure", str(folder), "?p=tables", "--out", str(tmp_path / "table.tex")]) == 0
    assert f"\n% {told}" in (tmp_path / "table.tex").read_text()


def test_stores_of_two_machines_that_are_shown_together_and_rules_on_two_devices_are_mixtures_too(tmp_path):
    stores = {name: tmp_path / name for name in ("laptop", "cluster")}
    fill(stores["laptop"], {("bp", "exact"): {0.1: 0.4}}, **computed(CPU, GPU))
    fill(stores["cluster"], {("usf", "exact"): {0.1: 0.6}}, **computed(GPU, GPU))
    data = opened([*map(str, stores.values())])
    (sentence,) = mixtures(data)
    assert (
        "fine-tuned in float32 on a CPU (bp; seeds 0, 1, 2) and in tf32 on NVIDIA H200 (usf; seeds 0, 1, 2)" in sentence
    )
    # Apart, no score is of both.
    assert not mixtures(data, "?rows=store")


def test_gpus_of_two_kinds_are_two_devices(tmp_path):
    folder = fill(tmp_path / "store", SHARES, seeds=(0,), **computed(GPU, GPU))
    fill(folder, SHARES, seeds=(1,), **computed(GPU | {"device": "NVIDIA A100-SXM4-40GB"}, GPU))
    (sentence,) = mixtures(folder)
    told = "in tf32 on NVIDIA A100-SXM4-40GB (bp, usf; seed 1) and in tf32 on NVIDIA H200 (bp, usf; seed 0): a part of"
    assert told in sentence


def test_the_sentence_is_of_what_the_filters_choose_and_of_bp_that_it_is_compared_with(tmp_path):
    folder = fill(tmp_path / "store", SHARES, seeds=(0,), **computed(CPU, CPU))
    fill(folder, {("usf", "exact"): {0.1: 0.6}}, seeds=(1,), **computed(GPU, GPU))
    fill(folder, SHARES, seeds=(0, 1), backbone="other", **computed(GPU, GPU))
    for search in ("", "?b=smallcnn", "?r=usf", "?s=0,1", "?s=1&r=usf,bp&b=smallcnn"):
        found = mixtures(folder, search)
        mixed = search != "?s=1&r=usf,bp&b=smallcnn"
        assert len(found) == mixed, search
    assert not mixtures(folder, "?b=other")
    assert not mixtures(folder, "?s=0&b=smallcnn")
    assert not mixtures(folder, "?r=bp")
    # The gap of seed 1, of uSF on a GPU, is to no BP; that of seed 0 is to BP of the CPU, and so is its own.
    fill(folder, {("bp", "exact"): {0.1: 0.6}}, seeds=(1,), draw=1, **computed(CPU, CPU))
    (sentence,) = mixtures(folder, "?s=1&r=usf&b=smallcnn")
    assert "in float32 on a CPU (bp; seed 1) and in tf32 on NVIDIA H200 (usf; seed 1)" in sentence


def test_attacks_on_the_same_models_are_named_by_the_attack(tmp_path):
    folder = fill(tmp_path / "store", SHARES, seeds=(0,), **computed(CPU, CPU))
    fill(folder, SHARES, seeds=(1,), **computed(CPU, GPU))
    (sentence,) = mixtures(folder)
    assert "of smallcnn / digits under pgd mix models that were attacked in float32 on a CPU" in sentence


@pytest.mark.parametrize(
    "other",
    [computed(CPU | {"device": "cpu x 8"}, CPU), CPU | {"precision": None}],
    ids=["other threads", "an older file"],
)
def test_what_is_alike_or_unknown_is_no_mixture(tmp_path, other):
    folder = fill(tmp_path / "store", SHARES, seeds=(0,), **computed(CPU, CPU))
    fill(folder, SHARES, seeds=(1,), **other)
    # Another attack on another device: nothing averages the two.
    fill(folder, SHARES, seeds=(0, 1), attack="fgsm", **computed(CPU, GPU))
    assert not mixtures(folder)


def test_seeds_that_were_computed_before_and_after_a_module_was_edited_are_told_apart(tmp_path):
    before, after, other = (f'{{"python": "3.11", "extension {name}": "{digest}"}}' for name, digest in MODULES)
    folder = fill(tmp_path / "store", {("usf", "exact"): {0.1: 0.4}}, seeds=(0,), versions=before)
    fill(folder, {("bp", "exact"): {0.1: 0.4}}, seeds=(0, 1), versions=other)
    assert not mixtures(folder), "the rules of two modules"
    fill(folder, {("usf", "feedback"): {0.1: 0.4}}, seeds=(1, 2), versions=after)
    (sentence,) = mixtures(folder)
    assert sentence.startswith(
        "Scores of usf under pgd, smallcnn / digits, mix results of several texts of your modules, by the digests of "
        "their files: extension mine 3fa9 (seed 0) and extension mine 77ab (seeds 1, 2)."
    )
