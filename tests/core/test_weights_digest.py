"""Weights files are loaded only with the bytes that were planned, or that their published name promises."""

from __future__ import annotations

import hashlib

import pytest
import torch
from safetensors.torch import save, save_file

import signsym_core as ss
from signsym_core import seal
from signsym_core.backbones.weights import WeightsError, load_file, load_published, load_whole_file, refuse_other_bytes


def network(seed):
    return ss.BACKBONES.build("smallcnn", width=4).build(3, channels=1, size=8, seed=seed)


def write(file, model):
    state = {name: tensor.contiguous() for name, tensor in model.network.state_dict().items()}
    save_file(state, file) if file.suffix == ".safetensors" else torch.save(state, file)
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_a_file_that_was_replaced_is_refused_with_both_digests(tmp_path, name):
    file = tmp_path / name
    planned, model = write(file, network(1)), network(0)
    load_file(model, file, sha256=planned)
    body = {key: value.clone() for key, value in model.network.state_dict().items()}
    assert any(
        torch.equal(body[key], value) for key, value in network(1).network.state_dict().items() if value.dim() > 1
    )
    replaced = write(file, network(2))
    with pytest.raises(WeightsError, match=rf"{name} was replaced.*expected sha256 {planned}, got {replaced}"):
        load_file(model, file, sha256=planned)
    assert all(torch.equal(body[key], value) for key, value in model.network.state_dict().items())
    # Without a digest there is nothing to hold it against.
    load_file(model, file)


@pytest.mark.parametrize("load", [load_file, load_whole_file])
def test_a_sealed_file_of_which_a_bit_was_flipped_is_refused_and_nothing_is_loaded(tmp_path, load):
    state = {name: tensor.contiguous() for name, tensor in network(1).network.state_dict().items()}
    data = seal.sealed(save(state, metadata={seal.KEY: seal.BLANK}))
    file, model = tmp_path / "model.safetensors", network(0)
    file.write_bytes(data)
    load(model, file)
    weights = {name: tensor.clone() for name, tensor in network(0).network.state_dict().items()}
    model.network.load_state_dict(weights)
    for position in (len(data) - 1, len(data) // 2):
        data[position] ^= 4
        file.write_bytes(data)
        with pytest.raises(WeightsError, match=rf"{file} is damaged: .*sha256.*Copy or export it anew"):
            load(model, file)
        data[position] ^= 4
    assert all(torch.equal(tensor, model.network.state_dict()[name]) for name, tensor in weights.items())


def test_published_weights_that_are_not_what_their_name_says_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    backbone = ss.BACKBONES.build("resnet18")
    file = tmp_path / "checkpoints/resnet18-f37072fd.pth"
    torch.save(backbone.build(1000, channels=3, size=32, seed=0).network.state_dict(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    model = backbone.build(10, channels=3, size=32, seed=1)
    with pytest.raises(WeightsError, match=rf"expected a sha256 that begins with f37072fd.*got {digest}.*Delete it"):
        load_published(model, backbone, "IMAGENET1K_V1")
    # A name that promises these bytes is believed, and so is one that promises nothing.
    for name in (f"resnet18-{digest[:8]}.pth", "resnet18.pth"):
        file = file.rename(file.parent / name)
        refuse_other_bytes(file)
    refuse_other_bytes(tmp_path / "checkpoints/gone-f37072fd.pth")
