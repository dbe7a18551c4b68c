"""Adversarial training: Madry's loop written out, and nothing of a training changed but its images."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import signsym_core as ss
from signsym_core import registry, seeds
from signsym_core.attacks import ATTACKS, Attack
from signsym_core.backbones import Model
from signsym_core.datasets import inputs
from signsym_core.registry import ParameterError
from signsym_core.training import finetune
from signsym_core.training.adversarial import Adversarial
from signsym_core.training.checkpoint import Checkpoint
from signsym_core.training.optimizers import eager

TASK = ss.TASKS.build("classification")
SOURCE = ss.DATASETS.build("digits", train_images=50, test_images=20, classes=[0, 1, 2])
DATA = SOURCE.load(Path())
PGD = {"name": "pgd", "epsilon": "1/8", "steps": 3, "step_size": 0.06}

#: The rules that train any network, and brSF as BioTorch has it, which draws at every forward pass.
RULES = [{"name": rule.name} for rule in ss.RULES if rule.backbones is None]
RULES += [{"name": "brsf", "redraw": "forward"}]


class Dropped(nn.Module):
    """A network with batch normalisation and dropout."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU()
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(6 * 36, 3)

    def forward(self, x):
        return self.fc(self.drop(self.relu(self.norm(self.conv(x))).flatten(1)))


class Plain(nn.Sequential):
    """A network whose images do not depend on each other."""

    def __init__(self):
        super().__init__(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 3))


def model(rule="usf", network=Dropped, **parameters):
    torch.manual_seed(0)
    return ss.convert(Model(network(), "fc" if network is Dropped else "3", (0.5,), (0.5,)), rule, seed=5, **parameters)


def train(network, adversarial, epochs=2, seed=1, **more):
    settings = {"epochs": epochs, "batch_size": 16, "lr": 1e-3, "head_lr": 1e-2, "adversarial": adversarial}
    settings |= {"optimizer": "adamw" if "rule=kp" in str(network) else "adam"}
    history = ss.fine_tune(network, DATA.train, SOURCE, TASK, ss.FineTune(**settings), seed=seed, **more)
    return [row["loss"] for row in history]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_the_weights_are_those_of_madrys_loop_written_out():
    trained, network = model("bp", Plain), model("bp", Plain)
    losses = train(trained, PGD | {"gradient": "exact"})
    layers = zip((network.network[0], network.network[3]), (1e-3, 1e-2), strict=True)
    groups = [{"params": layer.parameters(), "lr": rate} for layer, rate in layers]
    optimizer = eager(torch.optim.Adam)(groups, weight_decay=5e-4)
    pixels, labels, means = inputs(DATA.train.images, SOURCE), DATA.train.labels, []
    for epoch in range(2):
        found = []
        order = torch.randperm(len(labels), generator=seeds.generator(1, "order", epoch))
        for step, chosen in enumerate(order.split(16), 1):
            x, y = pixels[chosen], labels[chosen]
            start = torch.rand(x.shape, generator=seeds.generator(1, "adversarial", epoch, step))
            moved = (x + (2 * start - 1) / 8).clamp(0, 1)
            for _ in range(3):
                moved = moved.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(F.cross_entropy(network(moved), y), moved)
                moved = moved + 0.06 * gradient.sign()
                moved = torch.minimum(torch.maximum(moved, x - 1 / 8), x + 1 / 8).clamp(0, 1)
            loss = F.cross_entropy(network(moved.detach()), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.detach())
        means.append(float(torch.stack(found).mean()))
    assert losses == pytest.approx(means, rel=1e-4)
    for (name, weight), expected in zip(trained.named_parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-3, atol=2e-5, msg=name)
    plain = model("bp", Plain)
    assert train(plain, None) != pytest.approx(means, rel=0.1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Looking(Attack):
    """Asks for gradients and outputs, and changes nothing."""

    name, label, citation = "looking", "looking", "a test"
    tags = frozenset({"white-box", "linf"})

    def run(self, problem, epsilon):
        asked.append(problem.gradient(problem.images + 0.01).abs().sum())
        problem.outputs(problem.images)
        return problem.images


@dataclasses.dataclass(frozen=True, kw_only=True)
class Straying(Attack):
    """Leaves every ball."""

    name, label, citation = "straying", "straying", "a test"
    norm = "l2"

    def run(self, problem, epsilon):
        return problem.images + 7 * epsilon


asked: list[torch.Tensor] = []


@pytest.fixture(autouse=True)
def _our_attacks(monkeypatch):
    monkeypatch.setattr(ATTACKS, "_members", ATTACKS._members | {"looking": Looking, "straying": Straying})


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: " ".join(rule.values()))
def test_an_attack_that_changes_no_image_changes_no_number_of_the_training(rule):
    """Neither batch statistics, dropout, the draws of brSF nor what a rule learns know of the attack's passes."""
    parameters = {name: value for name, value in rule.items() if name != "name"}
    plain, attacked = model(rule["name"], **parameters), model(rule["name"], **parameters)
    losses = train(plain, None, epochs=1)
    asked.clear()
    assert train(attacked, {"name": "looking", "epsilon": 0.1, "gradient": "feedback"}, epochs=1) == losses
    assert same(plain, attacked)
    assert len(asked) == 4
    assert all(float(size) > 0 for size in asked)


@pytest.mark.parametrize("rule", ["bp", "brsf"])
def test_a_training_that_goes_on_has_the_numbers_of_an_undisturbed_one(rule):
    adversarial, checkpoints = PGD | {"gradient": "feedback"}, list[Checkpoint]()
    undisturbed, resumed = model(rule), model(rule)
    losses = train(undisturbed, adversarial, on_epoch=checkpoints.append)
    torch.rand(17)  # whatever happened in between
    assert train(resumed, adversarial, resume=checkpoints[0]) == losses
    assert same(resumed, undisturbed)
    other = model(rule)
    train(other, adversarial, seed=2)
    assert not same(other, undisturbed)


@pytest.mark.parametrize(
    "attack", [PGD, {"name": "apgd", "epsilon": 0.1, "steps": 4}, {"name": "noise", "epsilon": 0.1}]
)
def test_micro_batches_give_the_result_of_whole_ones(attack):
    whole, divided = model("frsf", Plain), model("frsf", Plain)
    losses = train(whole, attack)
    assert train(divided, attack, micro_batch=5) == pytest.approx(losses, rel=1e-4)
    for one, other in zip(whole.parameters(), divided.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_gradient_is_the_one_that_is_named():
    trained = {}
    for rule, *gradients in (("bp", "exact", "feedback"), ("frsf", "exact", "feedback", "mixed")):
        for gradient in gradients:
            trained[rule, gradient] = model(rule)
            train(trained[rule, gradient], PGD | {"gradient": gradient}, epochs=1)
    default = model("frsf")
    train(default, PGD, epochs=1)
    assert same(default, trained["frsf", "exact"])
    assert same(trained["bp", "exact"], trained["bp", "feedback"])
    assert not same(trained["frsf", "exact"], trained["frsf", "feedback"])
    assert not same(trained["frsf", "exact"], trained["frsf", "mixed"])


def test_examples_stay_in_the_ball_and_in_the_range_of_pixels(monkeypatch):
    made = []

    class Kept(finetune.Adversary):
        def __call__(self, images, labels, epoch, step):
            made.append((images, super().__call__(images, labels, epoch, step)))
            return made[-1][1]

    monkeypatch.setattr(finetune, "Adversary", Kept)
    for name, size, order in (("pgd", 0.1, float("inf")), ("straying", 1.5, 2)):
        made.clear()
        train(model(), {"name": name, "epsilon": size}, epochs=1)
        changes = torch.cat([(after.double() - before.double()).flatten(1) for before, after in made])
        assert changes.norm(p=order, dim=1).max() <= size
        assert changes.norm(p=order, dim=1).mean() > size * 0.9
        assert all(after.min() >= 0 and after.max() <= 1 and not after.requires_grad for _, after in made)


def test_an_adversarially_trained_model_is_more_robust():
    """On digits, under PGD along the exact gradient: the yardstick of what robustness is."""
    source = ss.DATASETS.build("digits", size=8, classes=[0, 1, 2], train_images=200)
    data = source.load(Path())
    robust = {}
    for adversarial in (None, {"name": "pgd", "epsilon": 0.15, "steps": 5}):
        torch.manual_seed(0)
        network = ss.convert(ss.BACKBONES.build("smallcnn", width=4).build(3, channels=1), "bp")
        settings = ss.FineTune(epochs=5, batch_size=16, lr=1e-2, head_lr=1e-2, adversarial=adversarial)
        ss.fine_tune(network, data.train, source, TASK, settings, seed=0)
        images = inputs(data.test.images, source)
        found = ss.attack("pgd", network, images, data.test.labels, [0, 0.15], gradient="exact", steps=10)
        robust[adversarial is not None] = found.accuracy
    assert min(robust[False][0], robust[True][0]) > 0.9
    assert robust[True][1] > robust[False][1] + 0.3


def test_equal_settings_are_written_equally_and_rebuilt():
    one = ss.FineTune(adversarial={"name": "pgd", "epsilon": "8/255", "steps": 5})
    other = ss.FineTune(adversarial={"gradient": "exact", "epsilon": 8 / 255, "name": "pgd", "random_start": True})
    assert one == other
    assert hash(one) == hash(other)
    assert registry.identity(one) == registry.identity(other)
    stored = json.loads(json.dumps(registry.identity(one)))
    assert stored["adversarial"]["epsilon"] == 8 / 255
    rebuilt = registry.rebuild(ss.FineTune, "finetune", stored)
    assert rebuilt == one
    assert rebuilt.adversarial.attack == ATTACKS.build("pgd", steps=5)
    assert one != ss.FineTune(adversarial={"name": "pgd", "epsilon": "8/255", "steps": 5, "gradient": "feedback"})
    assert "adversarial" not in registry.identity(ss.FineTune())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("pgd", "'adversarial' expects an attack as a mapping with name, epsilon, gradient and parameters, got 'pgd'"),
        ({"epsilon": 0.1}, "expects the key 'name', got epsilon"),
        ({"name": "none", "epsilon": 0.1}, "expects an attack that changes images, got 'none'"),
        ({"name": "pgd", "epsilon": "9/8"}, 'epsilon must be a number or a fraction such as "8/255", an L∞ radius'),
        ({"name": "pgd", "epsilon": 0.0}, "expects an epsilon above 0, got 0.0"),
        ({"name": "noise", "epsilon": 0.1, "gradient": "exact"}, "expects no gradient for attack 'noise'"),
        ({"name": "pgd", "epsilon": 0.1, "gradient": "hybrid"}, "'hybrid'; known: feedback, exact, mixed, eot"),
        ({"name": "pgd", "epsilon": 0.1, "deterministic": False}, "expects no deterministic here"),
        ({"name": "pgd", "epsilon": 0.1, "eps": 0.2}, "'eps': radii are given as 'epsilon' beside the attack's name"),
        ({"name": "pgd", "epsilon": 0.1, "step": 2}, "unknown parameter of attack 'pgd': 'step', did you mean 'steps'"),
    ],
)
def test_what_cannot_be_trained_against_is_refused(value, message):
    with pytest.raises(ParameterError) as caught:
        ss.FineTune(adversarial=value)
    assert message in str(caught.value)
    assert "parameter 'adversarial'" in str(caught.value)


def test_a_task_whose_attacks_need_codes_is_refused():
    task = ss.TASKS.build("hashing", bits=16)
    settings = ss.FineTune(epochs=1, adversarial={"name": "noise", "epsilon": 0.1})
    with pytest.raises(ValueError, match="adversarial: expected null for task 'hashing', whose attacks need codes"):
        ss.fine_tune(model(), DATA.train, SOURCE, task, settings, seed=0)
    hag = Adversarial.from_plain({"name": "hag", "epsilon": 0.1})
    assert hag.misfit(TASK) == "adversarial: expected an attack for task 'classification', got 'hag', for ['hashing']"
