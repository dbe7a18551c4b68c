"""The HyP² loss against formulas written out pair by pair, with their gradients, for one label and for several."""

from __future__ import annotations

import math

import pytest
import torch

import signsym_core as ss
from signsym_core.registry import ParameterError
from signsym_core.tasks.hyp2 import DISTANCES, hyp2_loss, threshold


def cosine(one, other):
    return (one * other).sum() / (one.norm() * other.norm())


def written_out(outputs, several, proxies, zeta, beta, variant):
    """The public code's terms, one image, one class and one pair at a time."""
    if variant == "h2q":
        proxies = torch.tanh(proxies)
    near, far, pairs = [], [], []
    for image in range(len(outputs)):
        for label in range(len(proxies)):
            angle = cosine(outputs[image], proxies[label])
            if several[image, label]:
                near.append(1 - angle)
            else:
                far.append((angle - zeta).clamp(min=0))
        for other in range(len(outputs)):
            counted = variant == "h2q" or (several[image].sum() > 1 and several[other].sum() > 1)
            if counted and not (several[image] & several[other]).any():
                pairs.append((cosine(outputs[image], outputs[other]) - zeta).clamp(min=0))
    total = sum(near) / len(near) + sum(far) / len(far)
    return total + beta * sum(pairs) / len(pairs) if pairs else total


@pytest.mark.parametrize("variant", ["original", "h2q"])
@pytest.mark.parametrize("kind", ["one label", "several labels"])
@pytest.mark.parametrize("seed", range(5))
def test_loss_and_gradients_are_those_of_the_formula_written_out(variant, kind, seed):
    random = torch.Generator().manual_seed(seed)
    images, bits, classes, zeta = 9, 16, 6, 0.125
    outputs = torch.randn(images, bits, generator=random, dtype=torch.float64).requires_grad_()
    proxies = torch.randn(classes, bits, generator=random, dtype=torch.float64).requires_grad_()
    if kind == "one label":
        labels = torch.randint(0, classes, (images,), generator=random)
        several = torch.nn.functional.one_hot(labels, classes).bool()
    else:
        several = torch.rand(images, classes, generator=random) < 0.35
        several[:, 0] |= ~several.any(dim=1)
        labels = several.to(torch.uint8)
    ours = hyp2_loss(outputs, labels, proxies, zeta=zeta, variant=variant, beta=0.7)
    theirs = written_out(outputs, several, proxies, zeta, 0.7, variant)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    for one, other in zip(
        torch.autograd.grad(ours, (outputs, proxies)), torch.autograd.grad(theirs, (outputs, proxies)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)


def test_pairs_count_in_the_original_among_images_of_several_labels_alone():
    outputs = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
    proxies = torch.randn(4, 12, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(8) % 4

    def loss(variant, beta):
        return hyp2_loss(outputs, labels, proxies, zeta=-0.5, variant=variant, beta=beta)

    assert loss("original", 5.0) == loss("original", 0.0)
    assert loss("h2q", 5.0) > loss("h2q", 0.0)


def test_a_batch_without_labels_or_without_strangers_has_a_loss():
    outputs = torch.randn(3, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    proxies = torch.randn(4, 12)
    for labels in (torch.zeros(3, 4, dtype=torch.uint8), torch.ones(3, 4, dtype=torch.uint8)):
        loss = hyp2_loss(outputs, labels, proxies, zeta=0.0, variant="h2q")
        assert torch.isfinite(loss)
        assert torch.isfinite(torch.autograd.grad(loss, outputs)[0]).all()


@pytest.mark.parametrize(
    ("bits", "classes", "zeta"),
    [(32, 10, 0), (64, 10, -0.03125), (12, 21, 1 / 3), (32, 80, 0.125), (48, 100, 1 / 12), (32, 1000, 0.25)],
)
def test_thresholds_of_the_papers_data_sets(bits, classes, zeta):
    assert threshold(bits, classes) == pytest.approx(zeta)


def test_no_table_entry_exceeds_the_griesmer_bound_and_more_words_are_closer():
    for bits, row in DISTANCES.items():
        assert list(row) == sorted(row, reverse=True)
        for k, distance in enumerate(row, 1):
            assert sum(math.ceil(distance / 2**i) for i in range(k)) <= bits


def test_what_is_not_tabulated_is_refused_with_a_way_out():
    with pytest.raises(ParameterError, match="zeta set"):
        ss.TASKS.build("hashing", bits=20)
    with pytest.raises(ValueError, match="'zeta'"):
        ss.TASKS.build("hashing").objective(5000, 0)
    objective = ss.TASKS.build("hashing", bits=20, zeta=0.1).objective(5000, 0)
    assert objective.proxies.shape == (5000, 20)


def test_proxies_learn_at_their_own_rate_and_a_checkpoint_keeps_them():
    source = ss.DATASETS.build("digits", size=8, classes=[1, 2, 3], train_images=64, test_images=10)
    data = source.load(None)
    task = ss.TASKS.build("hashing", bits=12)

    def tuned(epochs, resume=None):
        model = ss.BACKBONES.build("smallcnn", width=4).build(12, channels=1, size=8, seed=0)
        kept = []
        settings = ss.FineTune(epochs=epochs, lr=1e-3, head_lr=1e-3)
        ss.fine_tune(model, data.train, source, task, settings, seed=0, resume=resume, on_epoch=kept.append)
        return kept

    whole = tuned(3)
    gone_on = tuned(3, resume=whole[0])
    start = task.objective(3, 0).proxies
    assert not torch.equal(whole[0].tensors["objective/proxies"], start)
    for name, tensor in whole[-1].tensors.items():
        assert torch.equal(tensor, gone_on[-1].tensors[name]), name
