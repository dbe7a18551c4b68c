"""A step in pieces is the step of the whole batch: over backbones and rules, dropout and coupled losses included."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

import signsym_core as ss
from signsym_core.microbatch import backward
from signsym_core.tasks import TASKS

TASK = TASKS.build("classification")
LOSS = TASK.objective(5, 0)


#: Parameters that make a task fit a head of five outputs.
SMALL = {"hashing": {"bits": 5, "zeta": 0.0}}


def network(dropout=0.5, channels_last=False):
    """Convolutions, two kinds of dropout and two linear layers, in float64."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Dropout2d(dropout),
        nn.Flatten(),
        nn.Linear(4 * 36, 12),
        nn.Tanh(),
        nn.Dropout(dropout),
        nn.Linear(12, 5),
    ).double()
    return made.to(memory_format=torch.channels_last) if channels_last else made


def batch(count=7, side=6, dtype=torch.float64):
    random = torch.Generator().manual_seed(3)
    images = torch.rand(count, 3, side, side, generator=random, dtype=dtype)
    return images, torch.randint(0, 5, (count,), generator=random)


def gradients(model, task, images, labels, micro_batch):
    """The loss and all gradients of one step, with torch's generator where every caller finds it."""
    model = copy.deepcopy(model).train()
    torch.manual_seed(11)
    loss = backward(model, task, images, labels, micro_batch)
    return loss, [parameter.grad for parameter in model.parameters()], torch.rand(1)


def assert_same(one, other, rtol=1e-9, atol=1e-12):
    torch.testing.assert_close(one[0], other[0], rtol=rtol, atol=atol)
    for a, b in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)
    assert one[2] == other[2], "torch's generator must be where the whole batch leaves it"


def coupled_loss(outputs, labels):
    """Every image meets every other."""
    same = (labels[:, None] == labels[None]).to(outputs.dtype)
    return ((outputs @ outputs.T).tanh() - same).square().mean()


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 6])
@pytest.mark.parametrize(
    "loss",
    [*(task(**SMALL.get(task.name, {})).objective(5, 0) for task in TASKS), coupled_loss],
    ids=[*TASKS.names, "coupled"],
)
def test_pieces_are_the_whole_with_dropout_and_any_loss(loss, micro_batch):
    images, labels = batch()
    whole = gradients(network(), loss, images, labels, None)
    assert_same(gradients(network(), loss, images, labels, micro_batch), whole)


def test_a_plain_accumulation_would_be_another_step():
    # So that the tests above can fail: neither the masks nor the coupled loss come out right by themselves.
    images, labels = batch()
    whole = gradients(network(), LOSS, images, labels, None)[1][0]
    model = network().train()
    torch.manual_seed(11)
    for rows in (slice(0, 3), slice(3, 6), slice(6, 7)):
        (LOSS(model(images[rows]), labels[rows]) * len(labels[rows]) / len(labels)).backward()
    assert not torch.allclose(next(model.parameters()).grad, whole, rtol=1e-3)
    coupled = gradients(network(0.0), coupled_loss, images, labels, None)[1][0]
    model = network(0.0).train()
    for rows in (slice(0, 3), slice(3, 6), slice(6, 7)):
        (coupled_loss(model(images[rows]), labels[rows]) * len(labels[rows]) / len(labels)).backward()
    assert not torch.allclose(next(model.parameters()).grad, coupled, rtol=1e-3)


@pytest.mark.parametrize("rule", ss.RULES.names)
def test_every_rule_keeps_one_feedback_for_all_pieces(rule):
    images, labels = batch()

    def made():
        return ss.convert(network(), rule=rule, seed=2)

    whole = gradients(made(), LOSS, images, labels, None)
    # Feedback drawn in float32 and the double pass through each layer: the same B, other orders of summation.
    assert_same(gradients(made(), LOSS, images, labels, 2), whole, rtol=1e-7)


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_stochastic_depth_and_attentions_dropout_draw_what_the_whole_batch_draws(mode):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 2, dropout=0.4 if mode == "batch" else 0.0, batch_first=True)
            self.drop, self.head = StochasticDepth(0.5, mode), nn.Linear(6, 3)

        def forward(self, images):
            x = images.flatten(2)
            return self.head((x + self.drop(self.attention(x, x, x, need_weights=False)[0])).mean(1))

    torch.manual_seed(0)
    model = ss.convert(Block(), "usf").double().train()
    images, labels = torch.rand(7, 4, 2, 3, dtype=torch.float64), torch.arange(7) % 3
    gradients = []
    for micro_batch in (None, 2):
        model.zero_grad()
        torch.manual_seed(5)
        backward(model, nn.functional.cross_entropy, images, labels, micro_batch)
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for expected, actual in zip(*gradients, strict=True):
        assert torch.allclose(expected, actual, rtol=1e-9, atol=1e-12)


# A vision transformer of its size takes minutes; a small one is in test_attention.py. VGG16 and ResNet-50 have kinds of
# layers that AlexNet and ResNet-18 have too, and more weights. A network with a penalty cannot.
@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in ss.BACKBONES.names if n not in ("vit_b_16", "vgg16", "resnet50", "mnm")])
def test_every_backbone_fine_tunes_alike_in_pieces(name):
    backbone = ss.BACKBONES.build(name)
    side = max(backbone.min_size, 16)
    source = ss.DATASETS.build("digits", size=side, train_images=5, test_images=4)
    data = source.load(Path())
    settings = ss.FineTune(epochs=1, batch_size=5, lr=1e-3, head_lr=1e-3)

    def tuned(model, micro_batch):
        ss.fine_tune(model, data.train, source, TASK, settings, seed=1, micro_batch=micro_batch)
        return model.state_dict()

    fresh = backbone.build(TASK.outputs(10), channels=data.channels, size=side, seed=0)
    whole, pieces = tuned(copy.deepcopy(fresh), None), tuned(fresh, 2)
    for key, value in whole.items():
        if value.is_floating_point():
            # Adam's first step is about lr in size whatever the gradient is, so rounding shows where that is near 0.
            assert (value - pieces[key]).abs().float().mean() < 1e-5, key


def test_batch_normalisation_sees_the_whole_batch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)).double()
    images, labels = batch()
    whole = gradients(model, LOSS, images, labels, None)
    assert_same(gradients(model, LOSS, images, labels, 2), whole, rtol=0, atol=0)
    one, other = copy.deepcopy(model).train(), copy.deepcopy(model).train()
    backward(one, LOSS, images, labels, None)
    backward(other, LOSS, images, labels, 2)
    assert torch.equal(one[1].running_mean, other[1].running_mean)
    assert other[1].num_batches_tracked == 1


@pytest.mark.parametrize("broken", [False, True])
def test_the_model_is_left_as_it_was(broken):
    model = network().train()
    images, labels = batch()
    if broken:
        with pytest.raises(IndexError):
            backward(model, LOSS, images, labels + 100, 2)
    else:
        backward(model, LOSS, images, labels, 2)
    assert not any("forward" in vars(module) for module in model.modules())


def test_layers_in_evaluation_mode_drop_nothing():
    model = network().eval()
    images, labels = batch()
    one = copy.deepcopy(model)
    backward(one, LOSS, images, labels, 3)
    other = copy.deepcopy(model)
    backward(other, LOSS, images, labels, None)
    torch.testing.assert_close(one[0].weight.grad, other[0].weight.grad)


def test_a_micro_batch_below_one_and_dropout_without_a_row_for_each_image_are_refused():
    images, labels = batch()
    with pytest.raises(ValueError, match="micro_batch"):
        backward(network(), LOSS, images, labels, 0)
    odd = nn.Sequential(nn.Flatten(0), nn.Dropout(0.5), nn.Unflatten(0, (-1, 108)), nn.Linear(108, 5)).double()
    with pytest.raises(ValueError, match=r"dropout layer '1'.*cannot be divided"):
        backward(odd.train(), LOSS, images, labels, 2)
