"""APGD against the paper's algorithm written out for one image, and the ensemble that is built on it."""

from __future__ import annotations

import math

import pytest
import torch
from targets import apgd_written_out, right, slope, small
from torch import nn

import signsym_core as ss
from signsym_core import seeds
from signsym_core.attacks.margins import dlr, runners_up, targeted_dlr
from signsym_core.tasks.classification import cross_entropy

EPSILON = 0.03


def loss_of(name):
    if name == "ce":
        return lambda z, y: nn.functional.cross_entropy(z, y, reduction="none")

    def ratio(z, y):
        ordered, order = z.sort(dim=1, descending=True)
        rows = torch.arange(len(z))
        other = torch.where(order[:, 0] == y, ordered[:, 1], ordered[:, 0])
        return -(z[rows, y] - other) / (ordered[:, 0] - ordered[:, 2] + 1e-12)

    return ratio


def written_out(model, image, label, number, steps, name, epsilon=EPSILON):
    """Algorithm 1 for one image from the start of its stream: the iterate of the highest loss among those preferred."""
    stream = torch.Generator().manual_seed(seeds.derive(0, "image", number))
    loss_function = loss_of(name)
    x, y = image[None], label[None]

    def project(z):
        return torch.minimum(torch.maximum(z, x - epsilon), x + epsilon).clamp(0, 1)

    def look(z):
        variable = z.clone().requires_grad_()
        outputs = model(variable)
        loss = loss_function(outputs, y)
        (gradient,) = torch.autograd.grad(loss.sum(), variable)
        return float(loss), gradient, bool(outputs.argmax(1) != y)

    if bool(model(x).argmax(1) != y):
        return image
    start = project(x + epsilon * (2 * torch.rand(image.shape, generator=stream, dtype=image.dtype) - 1)[None])
    return apgd_written_out(start, look, project, torch.sign, epsilon, steps)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ce", "dlr"])
def test_it_is_the_papers_algorithm_image_by_image(name):
    model = small("bp")
    images, labels = right(model, n=16)
    labels[3] = (labels[3] + 1) % 5
    # Double precision, so that no sign depends on the order of a sum.
    model, images = model.double(), images.double()
    outcome = ss.attack("apgd", model, images, labels, [EPSILON], loss=name, steps=100, keep=16)
    assert outcome.images_backward == 101 * 15
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        expected = written_out(model, image, label, number, 100, name)
        assert torch.allclose(outcome.adversarial[0, number], expected, atol=1e-9), number


def test_restarts_take_on_the_images_that_are_left_alone():
    model = small("frsf")
    images, labels = right(model)
    one, three = (
        ss.attack("apgd", model, images, labels, [EPSILON], steps=10, restarts=restarts) for restarts in (1, 3)
    )
    assert not (three.robust & ~one.robust).any()
    assert three.images_backward <= 11 * 40 + 2 * 11 * int(one.robust.sum())


@pytest.mark.slow
@pytest.mark.parametrize("source", ["feedback", "exact", "eot"])
def test_it_is_at_least_as_strong_as_pgd_of_as_many_steps(source):
    model = small("brsf")
    images, labels = right(model, n=10 if source == "eot" else 40)
    epsilons = [0.01, 0.02]
    steps = 5 if source == "eot" else 20
    apgd = ss.attack("apgd", model, images, labels, epsilons, gradient=source, steps=steps).robust.sum()
    pgd = ss.attack("pgd", model, images, labels, epsilons, gradient=source, steps=steps).robust.sum()
    assert apgd <= pgd + 2


def test_losses_are_those_of_the_paper_and_ignore_the_scale_and_the_shift_of_logits():
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 6
    assert torch.allclose(dlr(logits, labels), loss_of("dlr")(logits, labels))
    assert torch.allclose(dlr(logits * 100 + 7, labels), dlr(logits, labels), atol=1e-4)
    target = (labels + 2) % 6
    ordered = logits.sort(dim=1, descending=True).values
    rows = torch.arange(50)
    spread = ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2
    expected = -(logits[rows, labels] - logits[rows, target]) / spread
    assert torch.allclose(targeted_dlr(logits, labels, target), expected)
    assert torch.equal(runners_up(logits, labels, 9).sort(1).values[0], torch.tensor([1, 2, 3, 4, 5]))


def test_ratios_of_an_image_with_several_labels_are_those_without_its_further_labels():
    logits = torch.tensor([[3.0, 2.5, 1.0, 0.0, -1.0], [0.0, 1.0, 2.0, 5.0, 4.0]], requires_grad=True)
    labels = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 1, 1]])
    # By hand: of the first image classes 0, 2, 3, 4 are left, of the second 3, 0, 1, too few for four.
    first = dlr(torch.tensor([[3.0, 1.0, 0.0, -1.0]]), torch.tensor([0]))
    second = dlr(torch.tensor([[5.0, 0.0, 1.0]]), torch.tensor([0]))
    found = dlr(logits, labels)
    assert found.tolist() == pytest.approx([-2 / 3, -(5 - 1) / (5 - 0)])
    assert found.tolist() == pytest.approx([first.item(), second.item()])
    # Two labels above all else: over all classes the ratio is -1 and has no gradient.
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert (gradient.abs().amax(dim=1) > 0.1).all()
    targeted = targeted_dlr(logits, labels, torch.tensor([2, 1]))
    assert targeted.tolist() == pytest.approx([(1 - 3) / (3 - (0 - 1) / 2), 1 - 5])
    (gradient,) = torch.autograd.grad(targeted.sum(), logits)
    assert gradient.isfinite().all()
    assert gradient[1].tolist() == [0.0, 1.0, 0.0, -1.0, 0.0]


def test_the_loss_of_several_labels_is_that_of_their_probabilities_together():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.5, 0.0, 1.0], [1.0, 2.0, 3.0], [60.0, 59.0, -9.0]], requires_grad=True)
    labels = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [1, 1, 0]], dtype=torch.uint8)
    p = logits.detach().double().softmax(dim=1)
    loss = cross_entropy(logits, labels)
    # By hand; without a label the loss is 0, and with every label no image can be lost.
    assert loss.tolist() == pytest.approx([-math.log(p[0, 0] + p[0, 2]), 0, 0, p[3, 2].item()], abs=1e-12, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient[1:3].abs().max() == 0
    # Also where the model is sure, what lifts the other class lowers the labels, each by its share.
    share = p[3, :2] / p[3, :2].sum()
    assert gradient[3].tolist() == pytest.approx([*(-p[3, 2] * share).tolist(), p[3, 2].item()], rel=1e-5)
    one = torch.arange(4) % 3
    assert torch.allclose(cross_entropy(logits, nn.functional.one_hot(one, 3)), cross_entropy(logits, one))


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "apgd", "geometry"])
def test_an_image_with_several_labels_is_lost_where_all_of_them_can_be_brought_down(attack):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4, bias=False))
    model[1].weight.data = 5 * torch.eye(4)
    image = torch.tensor([0.8, 0.5, 0.3, 0.0]).view(1, 1, 1, 4)
    # ε = 0.3 is enough. The loss of training would lift the first label at the cost of the second.
    assert ss.attack(attack, model, image, torch.tensor([[1, 1, 0, 0]]), [0.0, 0.2, 0.3]).accuracy == [1, 1, 0]


def test_the_ratio_breaks_images_with_several_labels():
    model = small("bp")
    images, _ = right(model)
    with torch.no_grad():
        ranked = model(images).argsort(dim=1, descending=True)
    # The labels of each image are the two classes on top: where both lead, the ratio over all classes is constant.
    several = torch.zeros_like(ranked).scatter(1, ranked[:, :2], 1)
    outcome = ss.attack("apgd", model, images, several, [0.0, 0.3], gradient="exact", loss="dlr", steps=20)
    square = ss.attack("square", model, images, several, [0.3], queries=300)
    assert outcome.accuracy[0] == 1
    assert outcome.accuracy[1] <= square.accuracy[0] + 0.1


@pytest.mark.parametrize(("loss", "classes"), [("dlr", 2), ("targeted-dlr", 3)])
def test_too_few_classes_for_a_loss_are_a_clear_error(loss, classes):
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, classes))
    images = torch.rand(3, 3, 4, 4)
    with pytest.raises(ValueError, match=f"the model has {classes} classes"):
        ss.attack("apgd", model, images, model(images).argmax(1), [0.1], loss=loss, steps=3)


def test_saturated_logits_hide_from_cross_entropy_and_not_from_the_ratio():
    base = small("bp")
    images, labels = right(base)

    class Loud(nn.Module):
        def forward(self, x):
            return base(x) * 1e5

    ce, ratio = (ss.attack("apgd", Loud(), images, labels, [0.02], loss=loss, steps=20) for loss in ("ce", "dlr"))
    assert ratio.robust.sum() < ce.robust.sum()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["apgd", "autoattack"])
def test_a_linear_model_falls_just_above_its_smallest_perturbation(name):
    """For two classes it is |margin| / ||w||_1 in L∞, where no pixel meets the bounds of [0, 1]."""
    torch.manual_seed(0)
    linear = nn.Linear(108, 2).double()
    model = nn.Sequential(nn.Flatten(), linear)
    images = torch.rand(30, 3, 6, 6).double() * 0.2 + 0.4
    labels = model(images).argmax(1)
    apart = linear.weight[0] - linear.weight[1]
    margin = model(images)[:, 0] - model(images)[:, 1]
    smallest = (margin.abs() / apart.abs().sum()).detach()
    given = {"steps": 20} | ({"queries": 20} if name == "autoattack" else {})
    for image, label, radius in zip(images, labels, smallest.tolist(), strict=True):
        outcome = ss.attack(name, model, image[None], label[None], [radius * 0.999, radius * 1.001], **given)
        assert outcome.robust.flatten().tolist() == [True, False]


@pytest.mark.slow
def test_the_ensemble_loses_every_image_that_a_member_loses():
    model = small("frsf")
    images, labels = right(model)
    epsilons, given = [0.0, 0.01, 0.02, 0.04], {"steps": 15, "targets": 3, "queries": 100}
    ensemble = ss.attack("autoattack", model, images, labels, epsilons, **given)
    built = ss.ATTACKS.build("autoattack", **given)
    for member in built.members(5):
        alone = ss.attack(member, model, images, labels, epsilons)
        # Later members have streams of their own from the start too, so each is what it is alone.
        assert not (ensemble.robust & ~alone.robust).any()
    assert [member.name for member in built.members(5)] == ["apgd", "apgd", "fab", "square"]
    assert [member.name for member in built.members(3)] == ["apgd", "fab", "square"]


def test_a_surrogates_own_losses_stop_nothing():
    """An image that the surrogate sees wrongly from the start is attacked all the same."""
    model, other = small("bp"), small("bp", seed=4)
    images, labels = right(model)
    wrong = other(images).argmax(1) != labels
    assert wrong.any()
    for name, given in (("apgd", {"steps": 5}), ("autoattack", {"steps": 5, "targets": 2, "queries": 5})):
        made = ss.attack(name, model, images, labels, [0.1], gradient="transfer", surrogate=other, keep=40, **given)
        assert (made.linf[0][wrong] > 0.05).all()


def test_it_goes_on_from_given_images():
    model, twin = small("fa"), small("bp", seed=1)
    images, labels = right(model)
    own = ss.attack("apgd", model, images, labels, [0.05], steps=10)
    best = ss.attack("apgd", model, images, labels, [0.05], steps=10, gradient="hybrid", surrogate=twin)
    assert not (best.robust & ~own.robust).any()


def test_an_image_without_a_gradient_stays_in_its_ball():
    class Flat(nn.Module):
        def forward(self, x):
            return torch.stack([x.flatten(1).sum(1) * 0 + 9, x.flatten(1).sum(1) * 0, x.flatten(1).sum(1) * 0], dim=1)

    images, labels = torch.rand(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64)
    for loss in ("ce", "dlr"):
        outcome = ss.attack("apgd", Flat(), images, labels, [0.1], loss=loss, steps=5, keep=4)
        assert outcome.robust.all()
        assert outcome.adversarial.isfinite().all()
    assert slope(Flat(), images, labels).abs().max() == 0
