"""FGSM and PGD: against Foolbox, against a closed form, within their budget, and with no more passes than needed."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from targets import QUICK
from torch import nn

import signsym_core as ss
from signsym_core.attacks import Attack
from signsym_core.attacks.ball import within_ball
from signsym_core.auditing.probes import measure
from signsym_core.datasets import inputs
from signsym_core.datasets.batches import Prepared
from signsym_core.evaluation import attack as evaluation
from signsym_core.evaluation.attack import WeakAttackWarning
from signsym_core.microbatch import backward
from signsym_core.retrieval.codes import signs

EPSILONS = [0.0, 0.002, 0.01, 8 / 255, 0.1, 0.5]
#: For tests over every attack, some of which take 100 steps and more for the largest of the radii above.
FEWER = [0.0, 0.002, 8 / 255, 0.1]


def network(rule="usf"):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.Flatten()]
    return ss.convert(nn.Sequential(*layers, nn.Linear(72, 5)), rule).eval()


def batch(model, n=40, size=10, seed=1):
    images = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))
    labels = model(images).argmax(1)
    labels[::7] = (labels[::7] + 1) % 5  # some that are wrong from the start
    return images, labels


def fitting(name, model):
    """What the attack `name` needs beyond images and labels: quick parameters, a task that it fits, and its gallery."""
    if "classification" in ss.ATTACKS[name].tasks:
        return QUICK.get(name, {})
    others, _ = batch(model, n=60, seed=9)
    outputs = model(others)
    codes = ss.Codes(signs=signs(outputs), labels=outputs.argmax(1))
    return {"task": ss.TASKS.build("hashing", bits=5, zeta=0.0), "gallery": ss.Gallery(database=codes, train=codes)}


def of_foolbox(attack, model):
    """Foolbox's attack of a name and parameters, and a model as Foolbox takes it."""
    import foolbox

    name, parameters = attack
    return getattr(foolbox.attacks, name)(**parameters), foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["feedback", "exact"])
@pytest.mark.parametrize(
    ("name", "theirs", "parameters"),
    [
        ("fgsm", ("LinfFastGradientAttack", {}), {}),
        ("pgd", ("LinfPGD", {"steps": 5, "rel_stepsize": 0.5}), {}),
        (
            "pgd",
            ("LinfPGD", {"steps": 5, "rel_stepsize": 0.5, "random_start": False}),
            {"random_start": False},
        ),
        ("pgd", ("LinfPGD", {"steps": 7, "rel_stepsize": 0.3}), {"steps": 7, "relative_step": 0.3}),
        ("pgd", ("LinfPGD", {"steps": 20, "abs_stepsize": 0.03}), {"steps": 20, "step_size": 0.03}),
    ],
    ids=["fgsm", "pgd", "pgd-no-start", "pgd-relative", "pgd-absolute"],
)
@pytest.mark.parametrize("rule", ["bp", "frsf"])
def test_outcomes_are_foolboxs_image_by_image(rule, name, theirs, parameters, gradient):
    model = network(rule)
    images, labels = batch(model)
    ours = ss.attack(name, model, images, labels, EPSILONS, gradient=gradient, seed=3, keep=len(images), **parameters)
    theirs, wrapped = of_foolbox(theirs, model)
    with ss.exact_gradient(model) if gradient == "exact" else contextlib.nullcontext():
        for row, epsilon in enumerate(EPSILONS):
            torch.manual_seed(3)
            _, clipped, lost = theirs(wrapped, images, labels, epsilons=[epsilon])
            assert torch.equal(ours.robust[row], ~lost[0])
            assert torch.allclose(ours.adversarial[row], clipped[0], atol=1e-6)


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_a_linear_model_falls_exactly_where_its_closed_form_says(name):
    """For w·x + b the smallest L∞ perturbation that flips the sign is |w·x + b| / ||w||_1."""
    torch.manual_seed(0)
    linear = nn.Linear(12, 1).double()
    model = nn.Sequential(nn.Flatten(), linear)
    with torch.no_grad():
        linear.weight.mul_(0.3)

    class TwoLogits(nn.Module):
        def forward(self, x):
            margin = model(x)
            return torch.cat([margin, -margin], dim=1)

    images = torch.rand(60, 3, 2, 2).double() * 0.4 + 0.3
    margin = model(images).flatten().detach()
    labels = (margin < 0).long()
    smallest = margin.abs() / linear.weight.abs().sum()
    epsilons = [0.02, 0.05, 0.1, 0.2]
    outcome = ss.attack(name, TwoLogits(), images, labels, epsilons, gradient="exact")
    for row, epsilon in enumerate(epsilons):
        sure = (smallest - epsilon).abs() > 1e-6
        assert torch.equal(outcome.robust[row][sure], (smallest > epsilon)[sure])


def test_fgsm_takes_one_gradient_for_all_epsilons_and_pgd_no_more_than_foolbox():
    model = network()
    images, labels = batch(model, n=30)
    with_zero = [0.0, *[0.01 * at for at in range(1, 11)]]
    without = [0.01 * at for at in range(1, 12)]
    calls = []
    handle = model.register_forward_pre_hook(lambda *_: calls.append(1))
    fgsm = ss.attack("fgsm", model, images, labels, with_zero)
    assert len(calls) == fgsm.forwards <= 11
    handle.remove()
    assert (fgsm.images_forward, fgsm.images_backward) == (11 * 30, 30)
    fgsm = ss.attack("fgsm", model, images, labels, without)
    assert fgsm.forwards <= 11
    assert (fgsm.images_forward, fgsm.images_backward) == (12 * 30, 30)
    pgd = ss.attack("pgd", model, images, labels, without)
    assert (pgd.images_forward, pgd.images_backward) == (66 * 30, 55 * 30)
    assert ss.attack("pgd", model, images, labels, with_zero).images_forward == 61 * 30


@settings(max_examples=150, deadline=None)
@given(
    epsilon=st.one_of(st.floats(0, 1), st.sampled_from([1 / 255, 8 / 255, 0.1, 0.3, 1e-4])),
    seed=st.integers(0, 10_000),
    reach=st.sampled_from([0.5, 1.0, 1.7, 100.0]),
)
def test_no_image_leaves_its_ball_or_the_unit_range(epsilon, seed, reach):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(4, 3, 5, 5, generator=generator)
    images[0].clamp_(0, 0.05)
    images[1].clamp_(0.97, 1)
    proposed = images + (torch.rand(images.shape, generator=generator) * 2 - 1).sign() * epsilon * reach
    inside = within_ball(images, proposed, epsilon)
    assert (inside.double() - images.double()).abs().max() <= epsilon
    assert inside.min() >= 0
    assert inside.max() <= 1


def test_carried_outcomes_never_rise_take_fewer_passes_and_agree_for_one_epsilon():
    model = network()
    images, labels = batch(model)
    free = ss.attack("pgd", model, images, labels, EPSILONS)
    carried = ss.attack("pgd", model, images, labels, EPSILONS, carry=True)
    assert (carried.robust[:-1].int() >= carried.robust[1:].int()).all()
    assert carried.images_backward < free.images_backward
    one = ss.attack("pgd", model, images, labels, [0.1], carry=True)
    clean = ss.attack("none", model, images, labels, [0.0])
    alone = ss.attack("pgd", model, images, labels, [0.1])
    assert torch.equal(one.robust, alone.robust)
    assert torch.equal(carried.robust[0], clean.robust[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ss.ATTACKS.names)
@pytest.mark.filterwarnings("ignore::signsym_core.evaluation.attack.WeakAttackWarning")
def test_results_do_not_depend_on_the_micro_batch_or_on_the_order_of_epsilons(name, monkeypatch):
    monkeypatch.setattr(evaluation, "BLOCK", 4)
    model = network("frsf")
    images, labels = batch(model, n=7)
    fits, epsilons = fitting(name, model), FEWER[:3]
    whole = ss.attack(name, model, images, labels, epsilons, keep=5, **fits)
    small = ss.attack(name, model, images, labels, epsilons, micro_batch=3, keep=5, **fits)
    assert torch.equal(whole.scores, small.scores)
    backwards = ss.attack(name, model, images, labels, epsilons[::-1], keep=5, **fits)
    assert torch.equal(whole.scores, backwards.scores.flip(0))
    assert whole.adversarial.shape == (len(epsilons), 5, 3, 10, 10)


def test_running_out_of_memory_halves_the_micro_batch_and_changes_nothing():
    model = network()
    images, labels = batch(model)

    class Small(nn.Module):
        def forward(self, x):
            if len(x) > 8:
                raise torch.OutOfMemoryError("out of memory")
            return model(x)

    whole = ss.attack("pgd", model, images, labels, EPSILONS)
    small = ss.attack("pgd", Small().eval(), images, labels, EPSILONS)
    assert torch.equal(whole.robust, small.robust)


def test_the_model_is_left_as_it_was_found():
    model = network().train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    statistics = model[1].running_mean.clone()
    images, labels = batch(model)
    before = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    ss.attack("pgd", model, images, labels, [0.1])
    assert ([m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]) == before
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(model[1].running_mean, statistics)


class InPlace(nn.Module):
    """A network that normalises its input, in place or not."""

    def __init__(self, in_place):
        super().__init__()
        torch.manual_seed(4)
        layers = [nn.Flatten(), nn.Linear(300, 8), nn.ReLU(), nn.Linear(8, 5)]
        self.in_place, self.network = in_place, ss.convert(nn.Sequential(*layers), "usf")

    def forward(self, images):
        return self.network(images.sub_(0.4).div_(0.5) if self.in_place else (images - 0.4) / 0.5)


@pytest.mark.parametrize("name", ["fgsm", "square", "smoothing"])
def test_a_model_that_changes_its_input_is_shown_the_same_images_each_time(name):
    plain, changing = InPlace(False).eval(), InPlace(True).eval()
    images = torch.rand(9, 3, 10, 10, generator=torch.Generator().manual_seed(2))
    labels, before = plain(images).argmax(1), images.clone()
    expected, found = (
        ss.attack(name, model, images, labels, [0.0, 0.02, 0.1], micro_batch=4, **QUICK.get(name, {}))
        for model in (plain, changing)
    )
    assert torch.equal(images, before)
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.adversarial, expected.adversarial)


def test_a_model_that_changes_its_input_is_probed_and_trained_as_another_one():
    images = torch.rand(9, 3, 10, 10, generator=torch.Generator().manual_seed(2))
    labels, probes, gradients = InPlace(False).eval()(images).argmax(1), [], []
    for in_place in (False, True):
        model = InPlace(in_place)
        probes.append(measure(model.eval(), images, labels))
        backward(model.train(False), ss.TASKS.build("classification").objective(5, 0), images, labels, micro_batch=4)
        gradients.append(model.network[1].weight.grad)
    assert np.array_equal(probes[0].rho, probes[1].rho)
    assert not probes[1].unsteady.any()
    assert torch.equal(*gradients)


def test_an_image_that_every_class_is_right_for_lacks_no_gradient():
    model = network("bp")
    images, labels = torch.rand(6, 3, 10, 10), torch.zeros(6, 5, dtype=torch.uint8)
    labels[:, 1], labels[2], labels[3] = 1, 1, 0
    outcome = ss.attack("fgsm", model, images, labels, [0.1])
    assert not outcome.zero_gradient.any()
    assert outcome.robust[0].tolist()[2:4] == [True, False]
    probe, without = measure(model, images, labels), measure(model, images[[0, 1, 4, 5]], labels[[0, 1, 4, 5]])
    assert np.allclose(probe.rho, without.rho)
    with pytest.raises(ValueError, match="at least one image with a label, and not with all of them"):
        measure(model, images[2:4], labels[2:4])


def test_following_the_feedback_is_another_attack_than_the_exact_gradient():
    model = network("fa")
    images, labels = batch(model)
    outcomes = [ss.attack("fgsm", model, images, labels, EPSILONS, gradient=g).robust for g in ("feedback", "exact")]
    assert outcomes[0].sum() > outcomes[1].sum()


def test_images_without_a_gradient_are_flagged():
    class Saturated(nn.Module):
        def forward(self, x):
            return torch.stack([x.flatten(1).sum(1) * 0 + 1000, x.flatten(1).sum(1) * 0], dim=1)

    outcome = ss.attack("fgsm", Saturated(), torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.int64), [0.1])
    assert outcome.zero_gradient.all()
    assert not ss.attack("fgsm", network(), *batch(network()), [0.1]).zero_gradient.any()


def test_steps_that_cannot_reach_the_border_warn():
    model = network()
    with pytest.warns(WeakAttackWarning, match=r"5 steps of 0\.01 cannot reach .* radius 0\.1"):
        ss.attack("pgd", model, *batch(model), [0.1], step_size=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ss.attack("pgd", model, *batch(model), EPSILONS)
        ss.attack("fgsm", model, *batch(model), EPSILONS)


def changed(tensor, value):
    tensor = tensor.clone()
    tensor.view(-1)[5] = value
    return tensor


#: The attacks on classification.
CLASSIFYING = [cls.name for cls in ss.ATTACKS if "classification" in cls.tasks]

BAD = {
    "NaN": (lambda x, y: (changed(x, math.nan), y, [0.1]), "finite"),
    "below 0": (lambda x, y: (changed(x, -0.1), y, [0.1]), r"\[0, 1\]"),
    "above 1": (lambda x, y: (x * 255, y, [0.1]), r"normalisation is part of the model"),
    "three dimensions": (lambda x, y: (x[0], y, [0.1]), "channels, height, width"),
    "whole numbers": (lambda x, y: ((x * 255).byte(), y, [0.1]), "uint8"),
    "too few labels": (lambda x, y: (x, y[:-1], [0.1]), "equally many"),
    "no images": (lambda x, y: (x[:0], y[:0], [0.1]), "at least one"),
    "label too large": (lambda x, y: (x, y + 5, [0.1]), r"0 \.\. 4"),
    "negative label": (lambda x, y: (x, y - 9, [0.1]), r"0 \.\. 4"),
    "float labels": (lambda x, y: (x, y.float(), [0.1]), "int64"),
    "epsilon below 0": (lambda x, y: (x, y, [-0.1]), r"in \[0, 1\], got -0\.1"),
    "epsilon above 1": (lambda x, y: (x, y, [8]), r"in \[0, 1\], got 8"),
    "epsilon NaN": (lambda x, y: (x, y, [math.nan]), "got nan"),
    "no epsilons": (lambda x, y: (x, y, []), "at least one"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_clear_error(case):
    model = network()
    make, words = BAD[case]
    images, labels, epsilons = make(*batch(model))
    with pytest.raises((ValueError, RuntimeError), match=words):
        ss.attack("none", model, images, labels, epsilons)


@pytest.mark.parametrize("name", CLASSIFYING)
@pytest.mark.parametrize("case", ["label too large", "float labels", "negative label"])
def test_bad_labels_are_a_clear_error_for_every_attack(name, case):
    model = network()
    make, words = BAD[case]
    images, labels, epsilons = make(*batch(model))
    with pytest.raises(ValueError, match=words):
        ss.attack(name, model, images, labels, epsilons, **QUICK.get(name, {}))


def test_a_model_with_the_wrong_output_is_a_clear_error():
    images, labels = batch(network())
    with pytest.raises(ValueError, match=r"logits of shape \[40, classes\], got \[40, 8, 8, 8\]"):
        ss.attack("none", nn.Conv2d(3, 8, 3), images, labels, [0.0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "pdg"}, "did you mean 'pgd'"),
        ({"gradient": "exakt"}, "did you mean 'exact'"),
        ({"step": 3}, "unknown parameter"),
        ({"eps": 0.1}, "parameter of attack 'pgd': 'eps': radii are given .* argument epsilons in Python; known: "),
        ({"Epsilon": 0.1}, "'Epsilon': radii are given"),
        ({"steps": 0}, "at least 1"),
        ({"step_size": 0.1, "relative_step": 0.1}, "null where step_size is given"),
    ],
)
def test_unknown_names_and_values_are_clear_errors(change, words):
    model = network()
    arguments = {"name": "pgd", **change}
    with pytest.raises(ValueError, match=words):
        ss.attack(arguments.pop("name"), model, *batch(model), [0.1], **arguments)


@pytest.fixture(scope="module")
def resnet():
    return ss.convert(ss.BACKBONES.build("resnet18").build(5, size=32, seed=0), "brsf", seed=1).eval()


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["feedback", "exact"])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("fgsm", ("LinfFastGradientAttack", {})),
        ("pgd", ("LinfPGD", {"steps": 5, "rel_stepsize": 0.5})),
    ],
    ids=["fgsm", "pgd"],
)
def test_a_real_network_falls_to_the_same_images_as_under_foolbox(resnet, name, theirs, gradient):
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = resnet(images).argmax(1)
    epsilons = [0.0, 0.005, 0.1]
    ours = ss.attack(name, resnet, images, labels, epsilons, gradient=gradient, seed=9, keep=3)
    theirs, wrapped = of_foolbox(theirs, resnet)
    with ss.exact_gradient(resnet) if gradient == "exact" else contextlib.nullcontext():
        for row, epsilon in enumerate(epsilons):
            torch.manual_seed(9)
            _, clipped, lost = theirs(wrapped, images, labels, epsilons=[epsilon])
            assert torch.equal(ours.robust[row], ~lost[0])
            assert torch.allclose(ours.adversarial[row], clipped[0], atol=1e-6)


class Counted(nn.Module):
    """A model that counts the images that pass through it, forward and backward."""

    def __init__(self, model):
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, x):
        self.forwards += len(x)
        if x.requires_grad:
            x = x * 1
            x.register_hook(self.count)
        return self.model(x)

    def count(self, gradient):
        self.backwards += len(gradient)


@pytest.mark.slow
@pytest.mark.parametrize("with_zero", [True, False])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("fgsm", ("LinfFastGradientAttack", {})),
        ("pgd", ("LinfPGD", {"steps": 5, "rel_stepsize": 0.5})),
    ],
    ids=["fgsm", "pgd"],
)
def test_no_more_images_pass_than_under_foolbox_and_all_are_counted(name, theirs, with_zero):
    images, labels = batch(network())
    epsilons = [0.01 * at for at in range(0 if with_zero else 1, 11 if with_zero else 12)]
    mine, other = Counted(network()).eval(), Counted(network()).eval()
    outcome = ss.attack(name, mine, images, labels, epsilons)
    assert (outcome.images_forward, outcome.images_backward) == (mine.forwards, mine.backwards)
    theirs, wrapped = of_foolbox(theirs, other)
    theirs(wrapped, images, labels, epsilons=epsilons)
    assert mine.forwards <= other.forwards
    assert mine.backwards <= other.backwards


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wild(Attack):
    """Proposes the same value everywhere, whatever the ball."""

    name, label, citation = "wild", "wild", "a test"

    value: float = 7.0

    def run(self, problem, epsilon):
        return torch.full_like(problem.images, self.value)


@pytest.mark.parametrize("value", [-7.0, 7.0, math.inf, -math.inf, math.nan])
def test_whatever_an_attack_proposes_is_brought_back(value):
    model = network()
    images, labels = batch(model, n=4)
    made = ss.attack(Wild(value=value), model, images, labels, [0.1], keep=4).adversarial[0]
    assert (made.double() - images.double()).abs().max() <= 0.1
    assert 0 <= made.min() <= made.max() <= 1


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_carrying_changes_nothing_for_one_epsilon(name, epsilon):
    model = network()
    images, labels = batch(model)
    carried = ss.attack(name, model, images, labels, [epsilon], carry=True, keep=40)
    alone = ss.attack(name, model, images, labels, [epsilon], keep=40)
    for field in ("robust", "linf", "predictions", "adversarial"):
        assert torch.equal(getattr(carried, field), getattr(alone, field))


@pytest.mark.parametrize(
    ("name", "gradient", "field"),
    [
        ("fgsm", "feedback", "zero_gradient"),
        ("fgsm", "hybrid", "zero_gradient"),
        ("square", "feedback", "queries"),
        ("hopskipjump", "feedback", "distances"),
    ],
)
def test_a_block_that_is_lost_already_keeps_its_place_beside_the_others(name, gradient, field):
    """Three hundred images are two blocks, of 256 and of 44; an image's numbers are those of a call where none is."""
    model = network()
    images, _ = batch(model, n=300)
    right = model(images).argmax(1)
    first, every = right.clone(), (right + 1) % 5
    first[:256] = every[:256]
    surrogate = network("bp") if gradient == "hybrid" else None

    def found(labels):
        how = {"gradient": gradient, "surrogate": surrogate, "carry": surrogate is None, **QUICK.get(name, {})}
        return getattr(ss.attack(name, model, images, labels, [0.0, 1e-4], **how), field)

    expected, of_second = found(right), found(first)
    assert of_second.shape == expected.shape
    assert of_second.dtype == expected.dtype
    assert not of_second[..., :256].any()
    assert torch.equal(of_second[..., 256:], expected[..., 256:])
    assert found(every) is None


def test_carrying_keeps_the_flag_for_images_without_a_gradient():
    model = network()
    images, labels = batch(model)
    assert ss.attack("fgsm", model, images, labels, EPSILONS, carry=True).zero_gradient is not None


def test_carried_predictions_are_classes():
    model = network()
    images, labels = batch(model)
    carried = ss.attack("pgd", model, images, labels, EPSILONS, carry=True)
    assert carried.predictions.min() >= 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ss.ATTACKS.names)
@pytest.mark.filterwarnings("ignore::signsym_core.evaluation.attack.WeakAttackWarning")
def test_no_outcome_depends_on_which_other_epsilons_there_are(name):
    model = network("frsf")
    images, labels = batch(model, n=16)
    fits = fitting(name, model)
    together = ss.attack(name, model, images, labels, FEWER, keep=16, **fits)
    for row, epsilon in enumerate(FEWER):
        alone = ss.attack(name, model, images, labels, [epsilon], keep=16, **fits)
        assert torch.equal(alone.scores[0], together.scores[row])
        assert torch.equal(alone.adversarial[0], together.adversarial[row])


@pytest.mark.slow
@pytest.mark.parametrize("name", ss.ATTACKS.names)
@pytest.mark.filterwarnings("ignore::signsym_core.evaluation.attack.WeakAttackWarning")
def test_a_batch_larger_than_a_block_gives_each_image_what_it_gets_in_a_smaller_one(name, monkeypatch):
    monkeypatch.setattr(evaluation, "BLOCK", 12)
    model = network()
    images, labels = batch(model, n=evaluation.BLOCK + 6)
    fits = fitting(name, model)
    whole = ss.attack(name, model, images, labels, FEWER, keep=len(images), **fits)
    assert whole.scores.shape == (len(FEWER), evaluation.BLOCK + 6)
    assert whole.adversarial.shape[:2] == whole.scores.shape
    first = ss.attack(name, model, images[: evaluation.BLOCK], labels[: evaluation.BLOCK], FEWER, **fits)
    assert torch.equal(whole.scores[:, : evaluation.BLOCK], first.scores)
    tiny = ss.attack(name, model, images, labels, FEWER, micro_batch=5, **fits)
    assert torch.equal(whole.scores, tiny.scores)


def test_images_beyond_the_first_block_get_noise_of_their_own():
    model = network()
    images, labels = batch(model, n=evaluation.BLOCK)
    twice = ss.attack("pgd", model, images.repeat(2, 1, 1, 1), labels.repeat(2), [0.1], keep=2 * evaluation.BLOCK)
    first, second = twice.adversarial[0].split(evaluation.BLOCK)
    assert not torch.equal(first, second)


def test_another_seed_is_another_random_start():
    model = network()
    images, labels = batch(model)
    made = [ss.attack("pgd", model, images, labels, [0.1], seed=seed, keep=40).adversarial for seed in (0, 0, 1)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_an_attack_leaves_the_global_generator_alone():
    model = network()
    images, labels = batch(model)
    before = torch.get_rng_state()
    ss.attack("pgd", model, images, labels, [0.1])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_too_large_for_one_image_is_an_out_of_memory_error():
    class Full(nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        ss.attack("fgsm", Full(), *batch(network()), [0.1])


@pytest.mark.parametrize("micro_batch", [0, -3])
def test_a_micro_batch_without_images_is_refused(micro_batch):
    model, calls = network(), []

    class Bounded(nn.Module):
        def forward(self, x):
            calls.append(len(x))
            assert len(calls) < 100, "the attack does not end"
            return model(x)

    with pytest.raises(ValueError, match="micro_batch"):
        ss.attack("none", Bounded(), *batch(model), [0.0], micro_batch=micro_batch)


def test_the_model_is_left_as_it_was_found_when_the_attack_fails():
    model = network().train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    images, labels = batch(model)
    before = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    with pytest.raises(ValueError, match="labels"):
        ss.attack("pgd", model, images, labels + 100, [0.1], gradient="exact")
    assert ([m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]) == before
    assert not any(layer.plain for layer in (model[0], model[3], model[6]))


def test_gradients_of_a_training_that_goes_on_are_not_touched():
    model = network().train()
    images, labels = batch(model)
    model(images).sum().backward()
    before = [p.grad.clone() for p in model.parameters()]
    ss.attack("pgd", model, images, labels, [0.1])
    assert all(torch.equal(p.grad, kept) for p, kept in zip(model.parameters(), before, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFYING)
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_value_error_under_every_attack(case, name):
    model = network()
    make, words = BAD[case]
    if ss.ATTACKS.build(name).norm == "l2" and case == "epsilon above 1":
        pytest.skip("a radius in L2 may be larger than 1")
    words = words.replace(r"in \[0, 1\], ", "") if case.startswith("epsilon") else words
    images, labels, epsilons = make(*batch(model))
    with pytest.raises(ValueError, match=words):
        ss.attack(name, model, images, labels, epsilons)


@pytest.mark.parametrize(
    "make",
    [lambda y: y[0], lambda y: y.tolist(), lambda y: y[:, None], lambda y: y.int(), lambda y: y > 2],
    ids=["one number", "a list", "two dimensions", "int32", "bool"],
)
@pytest.mark.parametrize("name", ["none", "fgsm"])
def test_labels_of_another_kind_are_a_value_error(name, make):
    model = network()
    images, labels = batch(model)
    with pytest.raises(ValueError, match="labels"):
        ss.attack(name, model, images, make(labels), [0.1])


@pytest.mark.parametrize("name", CLASSIFYING)
def test_a_model_with_the_wrong_output_is_a_value_error_under_every_attack(name):
    images, labels = batch(network())
    for model in (nn.Conv2d(3, 8, 3), nn.Sequential(nn.Flatten(0), nn.Linear(12_000, 5))):
        with pytest.raises(ValueError, match="logits of shape"):
            ss.attack(name, model, images, labels, [0.1])


def test_parameters_beside_an_attack_object_are_refused():
    model = network()
    with pytest.raises(TypeError, match="steps"):
        ss.attack(ss.ATTACKS.build("pgd"), model, *batch(model), [0.1], steps=3)


@pytest.mark.parametrize(
    ("parameters", "epsilons", "warns"),
    [
        ({"steps": 10, "step_size": 0.01}, [0.1], False),
        ({"steps": 10, "step_size": 0.01}, [0.101], True),
        ({"steps": 3, "relative_step": 1 / 3}, [0.1], False),
        ({"steps": 3, "relative_step": 0.3}, [0.1], True),
        ({"steps": 3, "relative_step": 0.3}, [0.0], False),
        ({"steps": 1, "step_size": 0.01}, [0.0, 0.01], False),
        ({"steps": 1, "step_size": 0.01}, [0.02, 0.0], True),
    ],
)
def test_the_warning_comes_where_all_steps_together_are_shorter_than_epsilon(parameters, epsilons, warns):
    model = network()
    images, labels = batch(model, n=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ss.attack("pgd", model, images, labels, epsilons, **parameters)
    assert any(issubclass(warning.category, WeakAttackWarning) for warning in caught) == warns


def test_only_the_images_without_a_gradient_are_flagged():
    class Half(nn.Module):
        def forward(self, x):
            total = x.flatten(1).sum(1)
            moving = torch.where(total > total.mean(), total, total * 0)
            return torch.stack([moving, -moving], dim=1)

    images = torch.cat([torch.full((3, 1, 4, 4), 0.1), torch.full((2, 1, 4, 4), 0.9)])
    outcome = ss.attack("fgsm", Half(), images, torch.zeros(5, dtype=torch.int64), [0.1, 0.2])
    assert outcome.zero_gradient.tolist() == [True] * 3 + [False] * 2


def test_attacks_that_need_no_gradient_of_the_clean_image_flag_none():
    model = network()
    assert ss.attack("none", model, *batch(model), [0.0]).zero_gradient is None
    assert ss.attack("pgd", model, *batch(model), [0.1]).zero_gradient is None


@pytest.mark.parametrize(("keep", "kept"), [(0, 0), (7, 7), (16, 16), (20, 20), (1000, 40)])
def test_as_many_adversarial_images_come_back_as_were_asked_for(monkeypatch, keep, kept):
    monkeypatch.setattr(evaluation, "BLOCK", 16)
    model = network()
    images, labels = batch(model, n=40)
    every = ss.attack("fgsm", model, images, labels, EPSILONS, keep=40).adversarial
    some = ss.attack("fgsm", model, images, labels, EPSILONS, keep=keep).adversarial
    assert torch.equal(some, every[:, :kept])


def test_predictions_are_those_of_the_adversarial_images():
    model = network()
    images, labels = batch(model)
    outcome = ss.attack("pgd", model, images, labels, EPSILONS, keep=40)
    for row in range(len(EPSILONS)):
        predicted = model(outcome.adversarial[row]).argmax(1)
        assert torch.equal(outcome.predictions[row], predicted)
        assert torch.equal(outcome.robust[row], predicted == labels)


def test_accuracy_and_reach_are_means_over_the_images():
    model = network()
    images, labels = batch(model)
    outcome = ss.attack("fgsm", model, images * 0.5 + 0.25, labels, [0.0, 0.1])
    assert outcome.accuracy == [float(row.sum()) / 40 for row in outcome.robust]
    assert math.isnan(outcome.reach[0])
    assert outcome.reach[1] == pytest.approx(1)


def test_images_that_are_floats_only_under_attack_meet_the_same_attack():
    source = ss.DATASETS.build("digits", size=12, test_images=300, train_images=10)
    test = source.load(Path()).test
    model = ss.BACKBONES.build("smallcnn").build(10, channels=1, size=12, seed=0)
    told = [
        ss.attack("pgd", model, images, test.labels, [0.0, 0.02], keep=300)
        for images in (inputs(test.images, source), Prepared(test.images, source))
    ]
    assert torch.equal(told[0].adversarial, told[1].adversarial)
    assert torch.equal(told[0].scores, told[1].scores)
    assert 0 < told[0].accuracy[0] < 1
