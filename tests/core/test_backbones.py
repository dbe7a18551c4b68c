"""Backbones and their weights: fresh heads from seeds, files in torchvision's format, clear refusals."""

from __future__ import annotations

import copy
import functools
import io
import pickle
from urllib.error import URLError

import pytest
import safetensors
import torch
from packaging.version import Version
from safetensors.torch import save_file
from torch import nn
from torchvision import models

import signsym_core as ss
from signsym_core.backbones.weights import WeightsError, load_file, load_published, load_whole_file

RESNET = ss.BACKBONES.build("resnet18")


@functools.cache
def drawn(outputs, seed):
    return RESNET.build(outputs, size=32, seed=seed)


def resnet(outputs, seed=0):
    """A new ResNet-18 for small images: drawing its weights takes longer than most tests."""
    return copy.deepcopy(drawn(outputs, seed))


@pytest.fixture(scope="module")
def published():
    """A state dict as torchvision publishes it, with a head of 1,000 classes."""
    torch.manual_seed(1)
    return models.resnet18().state_dict()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_local_file_fills_the_body_and_leaves_the_head_fresh(tmp_path, published, suffix):
    file = tmp_path / f"weights{suffix}"
    torch.save(published, file) if suffix == ".pth" else save_file(published, file)
    model = resnet(7, seed=3)
    head = model.network.fc.weight.clone()
    load_file(model, file)
    assert torch.equal(model.network.layer4[0].conv1.weight, published["layer4.0.conv1.weight"])
    assert torch.equal(model.network.bn1.running_var, published["bn1.running_var"])
    assert torch.equal(model.network.fc.weight, head)


@pytest.mark.slow
def test_a_model_of_ours_fits_too_also_when_it_was_converted(tmp_path):
    trained = ss.convert(resnet(5, seed=1), "frsf")
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    model = resnet(7, seed=3)
    load_file(model, tmp_path / "model.safetensors")
    assert torch.equal(model.network.conv1.weight, trained.network.conv1.weight)


def bytes_of(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


class Evil:
    def __reduce__(self):
        return (print, ("this ran",))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello", "cannot be read"),
        (pickle.dumps(Evil()), "cannot be read"),
        (bytes_of([1, 2]), "must hold a state dict"),
        (bytes_of({"a": torch.zeros(1)}), "which may be another one: it holds a, "),
        (b"", "it is empty"),
        (bytes_of(nn.Linear(1, 1)), r"it holds torch\.nn\.modules\.linear\.Linear, and code is never loaded"),
        ("alexnet", r"which may be another one: it holds features\.0\.weight, "),
    ],
    ids=["text", "code", "list", "other", "nothing", "module", "alexnet"],
)
def test_files_that_are_not_the_networks_weights_are_refused(tmp_path, content, words, capsys):
    if content == "alexnet":
        # Drawn here: that takes longer than the tests of many a file do to collect.
        content = bytes_of(models.alexnet().state_dict())
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        load_file(resnet(5), tmp_path / "weights.pth")
    assert "this ran" not in capsys.readouterr().out


def test_a_missing_file_and_a_wrong_shape_are_named(tmp_path, published):
    with pytest.raises(WeightsError, match="does not exist"):
        load_file(resnet(5), tmp_path / "none.pth")
    torch.save(published | {"conv1.weight": torch.zeros(1, 3, 7, 7)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"conv1\.weight has shape \[1, 3, 7, 7\] instead of \[64, 3, 7, 7\]"):
        load_file(resnet(5), tmp_path / "w.pth")


def test_published_weights_without_a_network_name_the_file_and_its_place(monkeypatch, tmp_path):
    def refused(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", refused)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError, match=f"{tmp_path}/checkpoints/resnet18-.*pth"):
        load_published(resnet(5), RESNET, "IMAGENET1K_V1")


@pytest.mark.parametrize(("backbone", "name"), [("resnet18", "IMAGENET1K_V9"), ("smallcnn", "IMAGENET1K_V1")])
def test_weights_that_are_not_published_are_refused(backbone, name):
    chosen = ss.BACKBONES.build(backbone)
    with pytest.raises(WeightsError, match="has no"):
        load_published(chosen.build(5, size=64), chosen, name)


# VGG16 and the transformer draw theirs in the same two calls, and take 20 seconds to draw.
@pytest.mark.slow
@pytest.mark.parametrize("backbone", [name for name in ss.BACKBONES.names if name not in ("vgg16", "vit_b_16")])
def test_initialisation_depends_on_the_seed_and_leaves_the_global_generator_alone(backbone):
    chosen = ss.BACKBONES.build(backbone)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    one, other, third = (chosen.build(4, size=chosen.min_size, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(2), expected)
    heads = [next(model.head_parameters()) for model in (one, other, third)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize("backbone", ss.BACKBONES.names)
def test_images_that_are_too_small_are_refused(backbone):
    chosen = ss.BACKBONES.build(backbone)
    with pytest.raises(ValueError, match=f"at least {chosen.min_size} x {chosen.min_size} pixels.*'size'"):
        chosen.build(4, size=chosen.min_size - 1)


@pytest.mark.slow
def test_files_from_before_batch_counters_fit_as_they_do_in_torchvision(tmp_path, published):
    """Published ResNet files of old lack `num_batches_tracked`, which torch fills in by itself."""
    old = {name: tensor for name, tensor in published.items() if not name.endswith("num_batches_tracked")}
    models.resnet18().load_state_dict(old)
    torch.save(old, tmp_path / "old.pth")
    model = resnet(7)
    load_file(model, tmp_path / "old.pth")
    assert torch.equal(model.network.bn1.running_var, published["bn1.running_var"])


def test_a_checkpoint_that_wraps_its_state_dict_fits(tmp_path, published):
    torch.save({"epoch": 90, "state_dict": published}, tmp_path / "checkpoint.pth")
    model = resnet(7)
    load_file(model, tmp_path / "checkpoint.pth")
    assert torch.equal(model.network.conv1.weight, published["conv1.weight"])


def test_every_weight_but_the_heads_is_that_of_the_file(tmp_path, published):
    torch.save(published, tmp_path / "w.pth")
    model = resnet(7)
    load_file(model, tmp_path / "w.pth")
    body = {name: tensor for name, tensor in model.network.state_dict().items() if not name.startswith("fc.")}
    assert len(body) == len(published) - 2
    assert all(torch.equal(tensor, published[name]) for name, tensor in body.items())


def test_a_refused_file_changes_no_weight(tmp_path, published):
    torch.save(published | {"layer4.1.bn2.weight": torch.zeros(3)}, tmp_path / "w.pth")
    model = resnet(7)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError, match=r"layer4\.1\.bn2\.weight"):
        load_file(model, tmp_path / "w.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: {n: t for n, t in state.items() if n != "bn1.weight"}, r"network: missing bn1\.weight$"),
        (lambda state: state | {"extra.weight": torch.zeros(1)}, r"network: unknown extra\.weight$"),
        (
            lambda state: {"a." + n if n != "fc.bias" else n: t for n, t in state.items()},
            r"it holds a\.conv1\.weight, ",
        ),
        (lambda state: state | {"epoch": 3}, "must hold a state dict"),
        (lambda state: {"net": state, "epoch": 3}, "state_dict, model_state_dict, model; got entries net, epoch"),
        (lambda state: {}, "missing"),
    ],
    ids=["missing", "unknown", "prefixed", "number", "entries", "empty"],
)
def test_names_that_do_not_fit_are_told(tmp_path, published, change, words):
    torch.save(change(dict(published)), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=words):
        load_file(resnet(5), tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_refused_with_its_place(tmp_path, published, suffix):
    file = tmp_path / f"w{suffix}"
    torch.save(published, file) if suffix == ".pth" else save_file(published, file)
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match=f"{file} cannot be read"):
        load_file(resnet(5), file)


def test_published_weights_fill_the_body(monkeypatch, tmp_path, published):
    def arrived(url, destination, *_, **__):
        torch.save(published, destination)

    monkeypatch.setattr("torch.hub.download_url_to_file", arrived)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    model = resnet(5, seed=2)
    head = model.network.fc.weight.clone()
    load_published(model, RESNET, "IMAGENET1K_V1")
    assert torch.equal(model.network.conv1.weight, published["conv1.weight"])
    assert torch.equal(model.network.fc.weight, head)


@pytest.mark.parametrize("backbone", [b.name for b in ss.BACKBONES if b.published])
def test_the_message_without_a_network_has_the_file_of_each_backbone(monkeypatch, tmp_path, backbone):
    def refused(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", refused)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    chosen = ss.BACKBONES.build(backbone)
    with pytest.raises(WeightsError) as caught, torch.device("meta"):
        load_published(RESNET.build(5), chosen, "IMAGENET1K_V1")
    name = models.get_weight(f"{chosen.published}.IMAGENET1K_V1").url.rpartition("/")[2]
    assert f"at {tmp_path}/checkpoints/{name}" in str(caught.value)


def test_unknown_published_weights_come_with_the_known_ones():
    with pytest.raises(WeightsError, match=r"'IMAGENET1K_V9'; torchvision has: IMAGENET1K_V1"):
        load_published(resnet(5), RESNET, "IMAGENET1K_V9")


@pytest.mark.parametrize("backbone", ["resnet18", "smallcnn"])
def test_one_seed_gives_one_body_whatever_the_number_of_classes(backbone):
    chosen = ss.BACKBONES.build(backbone)
    one, other, third = chosen.build(4, seed=1), chosen.build(7, seed=1), chosen.build(4, seed=2)
    for mine, theirs in zip(one.body_parameters(), other.body_parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert not torch.equal(next(one.body_parameters()), next(third.body_parameters()))


def test_normalisation_is_part_of_the_model():
    model = resnet(4).eval()
    images = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = model.network((images - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    assert torch.equal(model(images), expected)


def test_a_grey_image_is_its_own_colour_image():
    model = resnet(4).eval()
    grey = torch.rand(2, 1, 32, 32)
    assert torch.allclose(model(grey), model(grey.expand(2, 3, 32, 32)), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.complex64, torch.int64])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_numbers_of_another_kind_are_refused_by_name(tmp_path, published, dtype, suffix):
    file, changed = tmp_path / f"w{suffix}", published | {"conv1.weight": published["conv1.weight"].to(dtype)}
    if suffix == ".safetensors" and dtype.is_complex and Version(safetensors.__version__) < Version("0.7"):
        pytest.skip("safetensors writes complex numbers from 0.7 on")
    torch.save(changed, file) if suffix == ".pth" else save_file(changed, file)
    with pytest.raises(WeightsError, match=rf"conv1\.weight has {dtype} instead of floats$"):
        load_file(resnet(5), file)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_another_size_fit(tmp_path, published, dtype):
    torch.save({n: t.to(dtype) if t.is_floating_point() else t for n, t in published.items()}, tmp_path / "w.pth")
    model = resnet(5)
    load_file(model, tmp_path / "w.pth")
    assert torch.equal(model.network.conv1.weight, published["conv1.weight"].to(dtype).float())


SMALL = ss.BACKBONES.build("smallcnn", width=4)


@pytest.mark.parametrize(
    "kept",
    [
        lambda state: {"module." + name: tensor for name, tensor in state.items()},
        lambda state: {"module._orig_mod.network." + name: tensor for name, tensor in state.items()},
        lambda state: {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {"state": {}}},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {"state_dict": {"net." + name: tensor for name, tensor in state.items()}, "epoch": 3},
        lambda state: {n: t.double() for n, t in state.items()},
    ],
    ids=["DataParallel", "compiled", "tutorial", "torchvision", "Lightning", "counters"],
)
def test_checkpoints_as_training_scripts_write_them_fit_whole(tmp_path, kept):
    state = SMALL.build(3, seed=1).network.state_dict()
    torch.save(kept(state), tmp_path / "w.pth")
    model = SMALL.build(3, seed=2)
    load_whole_file(model, tmp_path / "w.pth")
    weights = dict(model.network.named_parameters())
    assert weights
    assert all(torch.equal(parameter, state[name]) for name, parameter in weights.items())


def test_a_head_of_other_classes_is_told_by_its_number(tmp_path):
    torch.save(SMALL.build(5, seed=1).network.state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"fc\.weight has 5 outputs where the data set has 3 classes"):
        load_whole_file(SMALL.build(3, seed=2), tmp_path / "w.pth")


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, published, value):
    broken = published["layer1.0.conv1.weight"].double()
    broken[0, 0, 0, :2] = value
    torch.save(published | {"layer1.0.conv1.weight": broken}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"layer1\.0\.conv1\.weight has 2 of 36864 entries that are not finite"):
        load_file(resnet(5), tmp_path / "w.pth")
