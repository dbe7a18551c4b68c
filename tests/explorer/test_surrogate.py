"""What is stored as the exact gradient of a network of spikes is that of a surrogate, and is called so."""

from __future__ import annotations

import pytest
from stores import fill, page

from orchestrator.results import members
from orchestrator.results.live_store import LiveStore
from signsym_core import BACKBONES

SHARES = {(rule, gradient): {0.0: 0.95, 0.1: 0.4} for rule in ("bp", "usf") for gradient in ("feedback", "exact")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("surrogate") / "store", SHARES, seeds=(0,), images=40, backbone="snn")


@pytest.mark.parametrize("name", ["curves", "gap", "flags", "tables"])
def test_every_page_calls_the_gradient_of_spikes_a_surrogates(name, folder, tmp_path):
    assert "surrogate" in repr(page(folder, f"p={name}"))
    plain = fill(tmp_path / "plain", SHARES, seeds=(0,), images=40, backbone="smallcnn")
    assert "surrogate" not in repr(page(plain, f"p={name}"))


def test_a_cell_is_told_with_its_surrogate(folder):
    assert "the gradient of the spikes' surrogate" in repr(
        page(folder, "p=cell&c=job-usf-exact-0-0-" + suffix(folder) + "-0.1")
    )


def test_the_backward_pass_of_spikes_is_no_gradient_by_how_it_is_built(folder, tmp_path):
    plain = fill(tmp_path / "plain", SHARES, seeds=(0,), images=40, backbone="smallcnn")
    for store, probed in ((folder, {"G2", "G2b", "G5"}), (plain, set())):
        known = LiveStore(str(store)).snapshot.computed().models.known()
        (bp,) = (model for model in known if model.setting["rule"] == "bp")
        assert {check.id for check in bp.judged().verdict.missing} & {"G2", "G2b", "G5"} == probed


def suffix(folder):
    return next(path.stem.rpartition("-")[2] for path in (folder / "results").iterdir())


def test_the_pages_know_the_networks_that_spike():
    assert {backbone.name for backbone in BACKBONES if backbone.spiking} == members.SPIKING
