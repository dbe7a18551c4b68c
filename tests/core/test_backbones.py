"""Backbones and their weights: fresh heads from seeds, files in torchvision's format, clear refusals."""

from __future__ import annotations

import io
import pickle
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

import signsym_core as ss
from signsym_core.backbones.weights import WeightsError, load_file, load_published

RESNET = ss.BACKBONES.build("resnet18")


@pytest.fixture(scope="module")
def published():
    """A state dict as torchvision publishes it, with a head of 1,000 classes."""
    torch.manual_seed(1)
    return models.resnet18().state_dict()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_local_file_fills_the_body_and_leaves_the_head_fresh(tmp_path, published, suffix):
    file = tmp_path / f"weights{suffix}"
    torch.save(published, file) if suffix == ".pth" else save_file(published, file)
    model = RESNET.build(7, size=32, seed=3)
    head = model.network.fc.weight.clone()
    load_file(model, file)
    assert torch.equal(model.network.layer4[0].conv1.weight, published["layer4.0.conv1.weight"])
    assert torch.equal(model.network.bn1.running_var, published["bn1.running_var"])
    assert torch.equal(model.network.fc.weight, head)


def test_a_model_of_ours_fits_too_also_when_it_was_converted(tmp_path):
    trained = ss.convert(RESNET.build(5, size=32, seed=1), "frsf")
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    model = RESNET.build(7, size=32, seed=3)
    load_file(model, tmp_path / "model.safetensors")
    assert torch.equal(model.network.conv1.weight, trained.network.conv1.weight)


def bytes_of(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


class Evil:
    def __reduce__(self):
        return (print, ("this ran",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello", "cannot be read"),
        (pickle.dumps(Evil()), "cannot be read"),
        (bytes_of([1, 2]), "must hold a state dict"),
        (bytes_of({"a": torch.zeros(1)}), "does not fit the network: missing"),
        (bytes_of(models.alexnet().state_dict()), "unknown|missing"),
    ],
    ids=["text", "code", "list", "other", "alexnet"],
)
def test_files_that_are_not_the_networks_weights_are_refused(tmp_path, content, words, capsys):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        load_file(RESNET.build(5, size=32), tmp_path / "weights.pth")
    assert "this ran" not in capsys.readouterr().out


def test_a_missing_file_and_a_wrong_shape_are_named(tmp_path, published):
    with pytest.raises(WeightsError, match="does not exist"):
        load_file(RESNET.build(5, size=32), tmp_path / "none.pth")
    torch.save(published | {"conv1.weight": torch.zeros(1, 3, 7, 7)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"conv1\.weight has shape \[1, 3, 7, 7\] instead of \[64, 3, 7, 7\]"):
        load_file(RESNET.build(5, size=32), tmp_path / "w.pth")


def test_published_weights_without_a_network_name_the_file_and_its_place(monkeypatch, tmp_path):
    def refused(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", refused)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError, match=f"{tmp_path}/checkpoints/resnet18-.*pth"):
        load_published(RESNET.build(5, size=32), RESNET, "IMAGENET1K_V1")


@pytest.mark.parametrize(("backbone", "name"), [("resnet18", "IMAGENET1K_V9"), ("smallcnn", "IMAGENET1K_V1")])
def test_weights_that_are_not_published_are_refused(backbone, name):
    chosen = ss.BACKBONES.build(backbone)
    with pytest.raises(WeightsError, match="has no"):
        load_published(chosen.build(5, size=64), chosen, name)


@pytest.mark.parametrize("backbone", ss.BACKBONES.names)
def test_initialisation_depends_on_the_seed_and_leaves_the_global_generator_alone(backbone):
    chosen = ss.BACKBONES.build(backbone)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    one, other = (chosen.build(4, seed=seed) for seed in (1, 1))
    assert torch.equal(torch.rand(2), expected)
    third = chosen.build(4, seed=2)
    heads = [next(model.head_parameters()) for model in (one, other, third)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize("backbone", ss.BACKBONES.names)
def test_images_that_are_too_small_are_refused_and_grey_ones_are_taken(backbone):
    chosen = ss.BACKBONES.build(backbone)
    with pytest.raises(ValueError, match=f"at least {chosen.min_size} x {chosen.min_size} pixels.*'size'"):
        chosen.build(4, size=chosen.min_size - 1)
    model = chosen.build(4, channels=1, size=chosen.min_size).eval()
    assert model(torch.rand(2, 1, chosen.min_size, chosen.min_size)).shape == (2, 4)
