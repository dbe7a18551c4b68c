"""Conformance suites: what every member of a family must do. Our own members pass them, and so should yours.

    from signsym_core.testing import check_rule
    check_rule(MyRule())

Each check raises AssertionError, saying what was expected and what came.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signsym_core.attacks import Attack
from signsym_core.attacks.ball import sizes
from signsym_core.backbones import Backbone
from signsym_core.datachecks import check_data
from signsym_core.datasets import DataSource
from signsym_core.evaluate import WeakAttackWarning
from signsym_core.evaluate import attack as run_attack
from signsym_core.learnedchecks import assembled, check_learned
from signsym_core.registry import Member
from signsym_core.retrieval import Codes, Gallery, signs
from signsym_core.rules import LearnedRule, Rule, ScaledRule
from signsym_core.rules.base import Scale
from signsym_core.rules.convert import convert, feedback, revert
from signsym_core.rules.held import weights_of
from signsym_core.rules.whole import WholeRule
from signsym_core.tasks import TASKS
from signsym_core.wholechecks import Network, check_whole


def check_member(member: Member) -> None:
    """A frozen dataclass with a name, a label and a source, whose parameters rebuild it."""
    assert dataclasses.is_dataclass(member), f"{member!r} must be a dataclass"
    assert member.__dataclass_params__.frozen, f"{member.name}: the dataclass must be frozen"  # type: ignore[attr-defined]
    for attribute in ("name", "label", "citation"):
        assert getattr(member, attribute, ""), f"{type(member).__name__} must have a {attribute}"
    assert type(member).__doc__, f"{member.name} must have a docstring with its formula"
    assert type(member)(**member.parameters()) == member, f"{member.name}: its parameters must rebuild it"


def check_rule(rule: Rule, network: Network | None = None, images: Tensor | None = None) -> None:
    """The promises of a learning rule, on a small network with a convolution and a linear layer.

    A rule of the whole network, at points or by steps, may need another one: what `network` makes, for its `images`.
    """
    check_member(rule)
    if isinstance(rule, WholeRule):
        ours = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        check_whole(rule, network or _network, ours if images is None else images)
        return
    _check_matrices(rule)


def _check_matrices(rule: Rule) -> None:
    network = _network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    plain = network(images)
    convert(network, rule, seed=3)
    for name, tensor in before.items():
        assert torch.equal(network.state_dict()[name], tensor), f"{rule.name} changed {name} when it was converted"
    assert torch.equal(network(images), plain), f"{rule.name} changed the forward pass"
    _check_gradients(rule, network, images)
    _check_freshness(rule, network, images)
    _check_updates(rule, network, images)
    _check_averages(rule)
    if isinstance(rule, LearnedRule):
        check_learned(rule, _network)
    repeated = convert(_network(), rule, seed=3)
    other = convert(_network(), rule, seed=4)
    first = convert(_network(), rule, seed=3)
    assert _equal(feedback(repeated), feedback(first)), f"{rule.name}: the same seed must give the same B"
    if rule.random:
        assert not _equal(feedback(repeated), feedback(other)), f"{rule.name}: another seed must give another B"
    if isinstance(rule, ScaledRule) and not isinstance(rule, LearnedRule):
        scales: tuple[Scale, Scale] = ("unit", "he_fanout")
        one, two = (feedback(convert(_network(), dataclasses.replace(rule, scale=s), seed=3)) for s in scales)
        assert not _equal(one, two), (
            f"{rule.name}: its parameter 'scale' changes nothing, so that cells of two scales would be one: build must "
            f"use `size`, or the rule derives from Rule, which has no scale"
        )
    revert(network)
    assert type(network[0]) is nn.Conv2d, f"{rule.name} must be undone by revert"
    assert network.state_dict().keys() == before.keys(), f"{rule.name}: revert must leave no trace"


def _check_gradients(rule: Rule, network: nn.Module, images: Tensor) -> None:
    """Against a network written with ordinary autograd: y = f(x, W) in value, f(x, B) in what reaches x."""
    inputs = images.clone().requires_grad_()
    network.zero_grad()
    outputs = network(inputs)
    # After the pass, so that a rule that draws at every pass tells the draw of this one.
    matrices = feedback(network)
    outputs.square().sum().backward()
    reference_inputs = images.clone().requires_grad_()
    reference = {name: p.detach().clone().requires_grad_() for name, p in weights_of(network)}

    def conv(x: Tensor, w: Tensor) -> Tensor:
        return F.conv2d(x, w, stride=2, padding=1)

    hidden = conv(reference_inputs.detach(), reference["0.weight"]) + conv(reference_inputs, matrices["0"])
    hidden = hidden - conv(reference_inputs, matrices["0"]).detach() + reference["0.bias"].view(1, -1, 1, 1)
    flat = hidden.relu().flatten(1)
    out = F.linear(flat.detach(), reference["3.weight"], reference["3.bias"])
    out = out + F.linear(flat, matrices["3"]) - F.linear(flat, matrices["3"]).detach()
    out.square().sum().backward()
    assert inputs.grad is not None
    assert reference_inputs.grad is not None
    _close(inputs.grad, reference_inputs.grad, f"{rule.name}: gradient of the input")
    for name, parameter in weights_of(network):
        gradient, expected = parameter.grad, reference[name].grad
        assert gradient is not None
        assert expected is not None
        _close(gradient, expected, f"{rule.name}: gradient of {name}")


def _check_freshness(rule: Rule, network: nn.Module, images: Tensor) -> None:
    """B is that of the weights of its pass where nothing counts that they were written, and so for copies."""
    network.eval()
    random = torch.Generator().manual_seed(5)
    for _ in range(3):
        before = feedback(network)
        for parameter in network.parameters():
            parameter.data.mul_(torch.rand(parameter.shape, generator=random) * 3 - 1)
        if rule.redraws != "forward":
            fresh = feedback(convert(_network(network), rule, seed=3).eval())
            learned = isinstance(rule, LearnedRule)
            expected = assembled(network) if learned else before if rule.frozen else fresh
            assert _equal(feedback(network), expected), f"{rule.name}: B must be that of the weights as they are"
            assert _equal(feedback(copy.deepcopy(network)), expected), f"{rule.name}: a copy must have the same B"
        # Twice, so that a matrix that was kept is met as well.
        for _ in range(2):
            _check_gradients(rule, network, images)


def _check_averages(rule: Rule) -> None:
    """Code that averages the tensors of state dicts averages the weights, and the rule still holds."""
    one, other, model = (convert(_network(), rule, seed=3) for _ in range(3))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
    states = one.state_dict(), other.state_dict()
    torch._foreach_lerp_(list(one.state_dict().values()), list(states[1].values()), 0.5)
    model.load_state_dict({name: 0.5 * states[0][name] + 0.5 * states[1][name] for name in states[0]})
    for average, scale in ((one, 1.5), (model, 1.75)):
        for (_, parameter), plain in zip(weights_of(average), _network().parameters(), strict=True):
            assert torch.allclose(parameter, scale * plain), f"{rule.name}: averaging must average the weights"
        _check_gradients(rule, average, torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)))


def _check_updates(rule: Rule, network: nn.Module, images: Tensor) -> None:
    """What the tags promise, over one update of the weights."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    before = feedback(network)
    optimizer.zero_grad()
    network(images).square().sum().backward()
    optimizer.step()
    after = feedback(network)
    weights = {name: network.get_submodule(name).weight for name in after}
    if "sign-symmetric" in rule.tags:
        for name, matrix in after.items():
            weight = weights[name]
            assert isinstance(weight, Tensor)
            assert torch.equal(matrix.sign(), weight.sign()), f"{rule.name}: B must have the signs of W in {name}"
    if rule.frozen or "fixed-after-init" in rule.tags:
        assert _equal(before, after), f"{rule.name}: a B that is fixed after initialisation must not change with W"
    if "fixed-draw" in rule.tags:
        assert rule.redraws == "never", f"{rule.name}: a draw that is fixed must not be drawn again"
    if "follows-weights" in rule.tags:
        assert not _equal(before, after), f"{rule.name}: B must follow W"
    network.eval()
    settled = feedback(network)
    network(images)
    if rule.redraws != "forward":
        assert _equal(feedback(network), settled), f"{rule.name}: B must not change in evaluation"


def check_attack(attack: Attack) -> None:
    """The promises of an attack on each task that it fits, on a small network.

    Budget, range, independence of epsilons, determinism, that only a white-box attack asks for gradients, that these
    are the chosen ones, and that every pass of the model is counted.
    """
    check_member(attack)
    assert attack.tasks, f"{attack.name} must fit a task"
    with warnings.catch_warnings():
        # A recipe kept for comparison may be weak by its own definition.
        warnings.simplefilter("ignore", WeakAttackWarning)
        for name in sorted(attack.tasks):
            _check_attack_on(attack, name)
            _check_passes(attack, name)
            if "white-box" in attack.tags:
                _check_chosen_gradient(attack, name)


def _check_attack_on(attack: Attack, name: str) -> None:
    network = _network().eval()
    images, labels, setting = _images_for(name, network)
    epsilons = [0.0, 0.01, 8 / 255, 0.5, 1.0]
    outcome = run_attack(attack, network, images, labels, epsilons, seed=1, keep=9, **setting)
    clean = setting["task"].score(network(images), labels, setting.get("gallery"))
    assert torch.equal(outcome.scores[0], clean), f"{attack.name}: epsilon 0 must be the clean images"
    for row, epsilon in enumerate(epsilons):
        change = sizes(outcome.adversarial[row].double() - images.double(), attack.norm).max()
        assert change <= epsilon, f"{attack.name} left the ball of {epsilon}: {float(change)}"
        low, high = outcome.adversarial[row].min(), outcome.adversarial[row].max()
        assert low >= 0, f"{attack.name} left [0, 1]: {float(low)}"
        assert high <= 1, f"{attack.name} left [0, 1]: {float(high)}"
        single = run_attack(attack, network, images, labels, [epsilon], seed=1, **setting)
        assert torch.equal(single.scores[0], outcome.scores[row]), f"{attack.name}: epsilon {epsilon} depends on others"
    repeated = run_attack(attack, network, images, labels, epsilons, seed=1, keep=9, **setting)
    assert torch.equal(repeated.adversarial, outcome.adversarial), f"{attack.name}: one seed must give one result"
    if "white-box" in attack.tags:
        assert outcome.backwards > 0, f"{attack.name} promises to ask for gradients"
    else:
        assert outcome.backwards == 0, f"{attack.name} asks for gradients without the tag white-box"


def _check_passes(attack: Attack, name: str) -> None:
    """Who calls the model past its problem has neither the chosen gradient nor honest counts."""
    network = _network().eval()
    images, labels, setting = _images_for(name, network)
    seen = [0, 0]

    def look(_: nn.Module, inputs: tuple[Tensor], outputs: Tensor) -> None:
        seen[0] += len(inputs[0])
        if outputs.requires_grad:
            outputs.register_hook(look_back)

    def look_back(gradient: Tensor) -> None:
        seen[1] += len(gradient)

    handle = network.register_forward_hook(look)
    try:
        outcome = run_attack(attack, network, images, labels, [0.1], gradient="exact", seed=1, **setting)
    finally:
        handle.remove()
    counted = [outcome.images_forward, outcome.images_backward]
    assert counted == seen, (
        f"{attack.name} has shown the model {seen} images, forward and backward, of which {counted} were counted: it "
        f"must reach the model through problem.module, outputs and gradient alone"
    )


def _check_chosen_gradient(attack: Attack, name: str) -> None:
    """The exact gradient is that of the plain network whatever the rule, the feedback is not, nor is a surrogate's."""
    plain, other = _network().eval(), convert(_network(), "fa", seed=3).eval()
    images, labels, setting = _images_for(name, plain)
    twin = {"surrogate_gallery": setting["gallery"]} if "gallery" in setting else {}

    def adversarial(gradient: str, surrogate: nn.Module | None = None) -> Tensor:
        with_twin = twin | {"surrogate": surrogate} if surrogate is not None else {}
        settings: dict[str, Any] = {"gradient": gradient, "seed": 1, "keep": len(images), **setting, **with_twin}
        return run_attack(attack, other, images, labels, [0.1], **settings).adversarial

    expected = run_attack(
        attack, plain, images, labels, [0.1], gradient="exact", seed=1, keep=len(images), **setting
    ).adversarial
    exact, feedback = adversarial("exact"), adversarial("feedback")
    went_around = f"{attack.name} does not follow the chosen gradient"
    assert torch.equal(exact, expected), f"{went_around}: with gradient 'exact' a rule must not change its images"
    moved = not torch.equal(expected[0], images)
    assert not moved or not torch.equal(feedback, exact), f"{went_around}: with 'feedback' its images are the exact's"
    by_plain, by_other = adversarial("transfer", plain), adversarial("transfer", other)
    assert torch.equal(by_plain, by_other), f"{went_around}: with 'transfer' it must follow the surrogate's exact one"


def _images_for(name: str, network: nn.Module) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Images, the labels that `network` gives them, and the task `name` with what it needs."""
    random = torch.Generator().manual_seed(2)
    images, gallery_images = torch.rand(9, 3, 8, 8, generator=random), torch.rand(30, 3, 8, 8, generator=random)
    return images, network(images).argmax(1), _setting(name, network, gallery_images)


def _setting(name: str, network: nn.Module, gallery_images: Tensor) -> dict[str, Any]:
    """The task `name` for the network's five outputs, with what it needs to score."""
    if name != "hashing":
        return {"task": TASKS.build(name)}
    with torch.no_grad():
        outputs = network(gallery_images)
    codes = Codes(signs=signs(outputs), labels=outputs.argmax(dim=1))
    return {"task": TASKS.build(name, bits=5, zeta=0.0), "gallery": Gallery(database=codes, train=codes)}


def check_dataset(source: DataSource, root: Path) -> None:
    """The promises of a data set below the data root `root`: types, labels, the same images twice, choices."""
    check_member(source)
    check_data(source, root)


def check_backbone(backbone: Backbone) -> None:
    """A model of it takes [0, 1] images of its smallest size, has a fresh head, and depends on its seed alone."""
    check_member(backbone)
    model = backbone.build(7, channels=3, size=backbone.min_size, seed=1).eval()
    images = torch.rand(2, 3, backbone.min_size, backbone.min_size)
    assert model(images).shape == (2, 7), f"{backbone.name} must give [n, outputs]"
    head = list(model.head_parameters())
    assert {p.shape[0] for p in head} == {7}, f"{backbone.name}: the head must be one layer of the asked width"
    body = list(model.body_parameters())
    assert len(head) + len(body) == len(list(model.parameters())), f"{backbone.name}: head and body must be all"
    convert(model, "usf")
    _check_grey(backbone)


def _check_grey(backbone: Backbone) -> None:
    """Grey images go through, by shapes alone."""
    side = backbone.min_size
    with torch.device("meta"):
        model = backbone.build(7, channels=1, size=side, seed=1).eval()
        try:
            shape = list(model(torch.empty(2, 1, side, side)).shape)
        except RuntimeError as error:
            raise AssertionError(
                f"{backbone.name} fails on grey images ({error}): a network made for `channels` needs a mean and a std "
                f"of one value, since one of three values makes three channels of a grey image"
            ) from error
    assert shape == [2, 7], f"{backbone.name} must give [n, outputs] for grey images too, got {shape}"


def _network(like: nn.Module | None = None) -> nn.Sequential:
    """A small network of fixed weights, or of those of `like`."""
    generator = torch.Generator().manual_seed(0)
    activation = nn.ReLU(inplace=True)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), activation, nn.Flatten(), nn.Linear(128, 5))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        if like is not None:
            for parameter, (_, value) in zip(network.parameters(), weights_of(like), strict=True):
                parameter.copy_(value)
    return network


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _close(actual: Tensor, expected: Tensor, what: str) -> None:
    error = float((actual - expected).norm() / expected.norm())
    assert error < 1e-5, f"{what}: relative error {error:.2e}, expected below 1e-5"
