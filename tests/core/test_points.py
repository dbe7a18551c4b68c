"""Rules at points, against networks written out with ordinary autograd, in training and under attack."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models

import signsym_core as ss
from signsym_core.attacks import GRADIENTS
from signsym_core.rules.dfa import DFA
from signsym_core.rules.local import Local
from signsym_core.rules.point_rule import PointRule
from signsym_core.rules.points import Points, PointsError, UnreadWarning
from signsym_core.tasks.classification import CrossEntropy
from signsym_core.testing import check_rule
from signsym_core.training.alignment import layer_alignment

SOURCE = ss.DATASETS.build("digits", train_images=48, test_images=20, classes=[0, 1, 2])
TASK = ss.TASKS.build("classification")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unchanged(PointRule):
    """Every point sends down the gradient that arrives: BP."""

    name, label, citation = "unchanged", "unchanged", "a control"

    def signal(self, error, delta, matrix):
        return delta


def small(seed=0):
    return ss.BACKBONES.build("smallcnn", width=4).build(5, channels=3, seed=seed)


def resnet():
    torch.manual_seed(0)
    return models.resnet18(num_classes=5)


def batch(n=6, size=16):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1)), torch.arange(n) % 5


def gradients(network, images, labels, rule=None):
    network.zero_grad(set_to_none=True)
    (rule or ss.RULES.build("bp")).step(network, CrossEntropy(), images, labels, None)
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("make", [small, resnet])
def test_points_that_send_down_what_arrives_are_bp_to_the_last_bit(make):
    plain, network = make(), ss.convert(make(), Unchanged())
    images, labels = batch(4, 32)
    assert equal(gradients(network, images, labels), gradients(plain, images, labels))
    # The control can fail: another signal is not BP's.
    assert not equal(gradients(ss.convert(network, "dfa"), images, labels), gradients(plain, images, labels))


def test_the_usual_points_are_activations_and_residual_blocks_but_nothing_within_a_block():
    names = [f"network.relu{stage}_{place}" for stage in (1, 2, 3) for place in (1, 2)]
    assert ss.convert(small(), "dfa").signal_points.names == names
    blocks = [f"layer{stage}.{place}" for stage in (1, 2, 3, 4) for place in (0, 1)]
    assert ss.convert(resnet(), "dfa").signal_points.names == ["relu", *blocks]
    chosen = ss.convert(resnet(), "local", points=("layer2", "layer1.0")).signal_points.names
    assert chosen == ["layer1.0", "layer2"]
    # A grid names modules as the backbone does.
    assert ss.convert(small(), "dfa", points=("norm1_1",)).signal_points.names == ["network.norm1_1"]


def test_dfa_on_a_linear_network_with_one_hidden_layer_is_fa_with_its_matrix():
    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.Identity(), nn.Linear(8, 5))

    images, labels = torch.rand(7, 6), torch.arange(7) % 5
    by_dfa = ss.convert(network(), "dfa", points=("1",), seed=2)
    expected = gradients(by_dfa, images, labels)
    matrix = by_dfa.signal_points.matrix(0, torch.empty(7, 8), torch.empty(7, 5))
    by_fa = ss.convert(network(), "fa", seed=2)
    by_fa[2].state.stand_in = matrix
    actual = gradients(by_fa, images, labels)
    assert all(torch.allclose(actual[name], expected[name], rtol=1e-6, atol=1e-9) for name in expected)
    assert matrix.shape == by_fa[2].weight.shape


@pytest.mark.parametrize("rows", [[], [16, 16], [9]], ids=["linear", "convolution", "tokens"])
def test_the_signal_of_dfa_is_the_error_times_b_spread_over_positions(rows):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.below, self.point, self.head = nn.Linear(4, 3 * 8), nn.Tanh(), nn.Linear(3, 5)

        def forward(self, x):
            low = self.below(x)
            shape = {0: (24,), 2: (3, 2, 4), 1: (8, 3)}[len(rows)]
            h = self.point(low.view(-1, *shape))
            if len(rows) == 0:
                return self.head(h.view(-1, 8, 3).mean(1))
            return self.head(h.flatten(2).mean(2) if len(rows) == 2 else h.mean(1))

    torch.manual_seed(0)
    network, images, labels = ss.convert(Net(), "dfa", seed=1), torch.rand(6, 4), torch.arange(6) % 5
    actual = gradients(network, images, labels)
    outputs = network(images).detach().requires_grad_()
    (error,) = torch.autograd.grad(F.cross_entropy(outputs, labels), outputs)
    low = network.below(images)
    h = torch.tanh(low.view(-1, *{0: (24,), 2: (3, 2, 4), 1: (8, 3)}[len(rows)]))
    matrix = network.signal_points.matrix(0, h, outputs)
    sent = torch.zeros_like(h)
    for image in range(6):
        for channel in range(matrix.shape[1]):
            value = sum(float(error[image, k] * matrix[k, channel]) for k in range(5))
            if len(rows) == 1:
                sent[image, :, channel] = value / 8
            elif len(rows) == 2:
                sent[image, channel] = value / 8
            else:
                sent[image, channel] = value
    expected = torch.autograd.grad(h, network.below.weight, sent)[0]
    assert torch.allclose(actual["below.weight"], expected, rtol=1e-4, atol=1e-8)


def written_out(network, images, labels):
    """The loss of every block of a converted SmallCNN under local errors, and of its outputs."""
    points, x = network.signal_points, (images - network.mean) / network.std
    losses = []
    for name, module in network.network.named_children():
        x = module(x) if not name.startswith("relu") else torch.relu(x)
        if name.startswith("relu"):
            height, width = x.shape[2] // 2, x.shape[3] // 2
            corners = [x[:, :, :height, :width], x[:, :, :height, width:], x[:, :, height:, :width]]
            corners.append(x[:, :, height:, width:])
            pooled = torch.stack([corner.mean(dim=(2, 3)) for corner in corners], dim=2).flatten(1)
            matrix = points.matrix(len(losses), x, torch.empty(1, 5))
            losses.append(F.cross_entropy(pooled @ matrix.t(), labels))
            x = x.detach()
    return [*losses, F.cross_entropy(x, labels)]


def test_local_errors_are_the_sum_of_the_losses_of_the_blocks():
    network, (images, labels) = ss.convert(small(), "local", seed=1).eval(), batch()
    rule = network.signal_points.rule
    actual = gradients(network, images, labels, rule)
    loss = rule.step(network, CrossEntropy(), images, labels, None)
    twin = copy.deepcopy(network)
    twin.signal_points.on = False
    twin.zero_grad()
    losses = written_out(twin, images, labels)
    sum(losses).backward()
    for name, parameter in twin.named_parameters():
        assert torch.allclose(actual[name], parameter.grad, rtol=1e-4, atol=1e-7), name
    # The loss that a history tells is that of the outputs, comparable between rules.
    assert float(loss) == pytest.approx(losses[-1].item())


def test_a_local_block_is_independent_of_every_later_weight():
    images, labels = batch()
    network, other = (ss.convert(small(), "local", seed=1) for _ in range(2))
    later = False
    for name, parameter in other.named_parameters():
        later = later or name.startswith("network.conv2_2")
        if later:
            parameter.data.mul_(-1.5).add_(0.1)
    for model, same in ((network, True), (ss.convert(small(), "dfa", seed=1), False)):
        rule = model.signal_points.rule
        before = gradients(model, images, labels, rule)
        model.load_state_dict({n: t for n, t in other.state_dict().items() if "extra" not in n}, strict=False)
        after = gradients(model, images, labels, rule)
        names = [name for name in before if name < "network.conv2_2" and "fc" not in name]
        assert names[0] == "network.conv1_1.weight"
        assert all(torch.equal(before[name], after[name]) for name in names) is same


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dfa", "local"])
def test_attacks_follow_the_labels_of_their_pass_whatever_the_pieces(name):
    network, (images, labels) = ss.convert(small(), name, seed=1), batch(8)
    fit(network, images, labels)
    whole = [attacked(network, gradient, images, labels) for gradient in GRADIENTS]
    # A training step with other labels and another number of images leaves nothing behind.
    network.signal_points.rule.step(network.train(), CrossEntropy(), images[:3], labels.roll(1)[:3], None)
    network.load_state_dict(copy.deepcopy(fit(ss.convert(small(), name, seed=1), images, labels)).state_dict())
    for gradient, expected in zip(GRADIENTS, whole, strict=True):
        assert torch.equal(attacked(network, gradient, images, labels, micro_batch=3), expected), gradient
    assert not torch.equal(whole[0], attacked(network, "feedback", images, labels.roll(1)))
    by_name = dict(zip(GRADIENTS, whole, strict=True))
    plain = ss.revert(copy.deepcopy(network))
    assert torch.equal(by_name["exact"], attacked(plain, "exact", images, labels))
    assert not torch.equal(by_name["feedback"], by_name["exact"])
    assert torch.equal(by_name["eot"], by_name["feedback"])
    assert torch.equal(by_name["transfer"], attacked(small(seed=1), "exact", images, labels))


def fit(network, images, labels):
    """Statistics of batch normalisation, and weights that are not those of the beginning."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        network.signal_points.rule.step(network.train(), CrossEntropy(), images, labels, None)
        optimizer.step()
    return network


def attacked(network, gradient, images, labels, micro_batch=256):
    twin = {"surrogate": small(seed=1)} if GRADIENTS[gradient].twin else {}
    more = {"gradient": gradient, "micro_batch": micro_batch, "keep": len(images), **twin}
    return ss.attack("pgd", network, images, labels, [0.05], steps=2, **more).adversarial


def test_a_librarys_attack_on_a_cut_network_gets_a_gradient_through_the_readouts():
    network, (images, labels) = ss.convert(small(), "local", seed=1).eval(), batch(4)
    problem = {}

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Looking(type(ss.ATTACKS.build("fgsm"))):
        def run(self, given, epsilon):
            pixels = given.images.clone().requires_grad_()
            F.cross_entropy(given.module(pixels), given.labels, reduction="sum").backward()
            problem["gradient"] = pixels.grad
            return given.images

    ss.attack(Looking(), network, images, labels, [0.1])
    pixels = images.clone().requires_grad_()
    outputs = network(pixels).detach().requires_grad_()
    (error,) = torch.autograd.grad(F.cross_entropy(outputs, labels, reduction="sum"), outputs)
    features = torch.relu(network.network[1](network.network[0]((pixels - network.mean) / network.std)))
    matrix = network.signal_points.matrix(0, features, outputs)
    (F.adaptive_avg_pool2d(features, 2).flatten(1) @ matrix.t() * error).sum().backward()
    assert torch.allclose(problem["gradient"], pixels.grad, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("name", ["dfa", "local"])
def test_conversion_leaves_pointed_modules_out_of_place_and_revert_puts_them_back(name):
    network = small()
    activations = [module for module in network.modules() if isinstance(module, nn.ReLU)]
    ss.convert(network, name)
    assert not any(module.inplace for module in activations)
    copied = copy.deepcopy(network)
    ss.convert(network, "bp")
    assert all(module.inplace for module in activations)
    assert "signal_points" not in vars(network)
    # A copy is independent: its rule goes on, and ends by itself.
    assert [type(points) for points in (copied.signal_points,)] == [Points]
    ss.revert(copied)
    assert all(module.inplace for module in copied.modules() if isinstance(module, nn.ReLU))


@pytest.mark.parametrize("name", ["dfa", "local"])
def test_the_gradient_is_the_same_in_pieces_under_dropout_and_in_a_copy(name):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.relu, self.drop = nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Dropout(0.3)
            self.mid, self.act, self.head = nn.Linear(6 * 36, 9), nn.Tanh(), nn.Linear(9, 5)

        def forward(self, x):
            return self.head(self.act(self.mid(self.drop(self.relu(self.conv(x)).flatten(1)))))

    network, (images, labels) = ss.convert(Plain(), name, seed=1), batch(6, 8)
    rule, expected = network.signal_points.rule, None
    for micro_batch, model in ((None, network), (4, network), (1, network), (None, copy.deepcopy(network))):
        model.zero_grad(set_to_none=True)
        torch.manual_seed(3)
        rule.step(model, CrossEntropy(), images, labels, micro_batch)
        actual = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        expected = actual if expected is None else expected
        assert torch.allclose(actual, expected, rtol=1e-4, atol=1e-7)


def test_alignment_is_that_of_the_rule():
    images, labels = batch()
    for name in ("dfa", "local"):
        rows = layer_alignment(ss.convert(small(), name, seed=1), CrossEntropy(), images, labels)
        assert rows[-1].cosine == pytest.approx(1)
        assert max(abs(row.cosine) for row in rows[:-2]) < 0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dfa", "local"])
def test_the_audit_judges_a_model_of_points(name):
    network, (images, labels) = ss.convert(small(), name, seed=1), batch(100, 8)
    # One bright quadrant, or none of them, is a class that a few steps learn.
    for image, label in zip(images, labels.tolist(), strict=True):
        image.mul_(0.5)[:, 4 * (label // 2) :, 4 * (label % 2) :][:, :4, :4] += 0.5 * (label < 4)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for step in range(40):
        # The last steps are for the statistics of batch normalisation.
        optimizer.param_groups[0]["lr"] = 0.02 if step < 25 else 1e-4
        optimizer.zero_grad()
        network.signal_points.rule.step(network.train(), CrossEntropy(), images, labels, None)
        optimizer.step()
    verdict = ss.audit(network.eval(), images, labels, ["2/255"], steps=4, queries=4)
    assert verdict.kind != "undecided"
    assert not verdict.missing
    assert "wrong_direction" in {result.finding.flag for result in verdict.raised}


def test_what_has_no_point_or_no_such_point_is_refused_and_stays_as_it_was():
    network = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    with pytest.raises(ValueError, match=r"'points' expects modules to name, since Sequential has no residual block"):
        ss.convert(network, "dfa")
    assert type(network[0]) is nn.Linear
    with pytest.raises(ValueError, match=r"unknown module in points: 'relu1_9', did you mean 'relu"):
        ss.convert(small(), "dfa", points=("relu1_9",))
    with pytest.raises(ValueError, match=r"'points' expects the name of a module, at least one, got \[\]"):
        ss.RULES.build("local", points=())
    with pytest.raises(ValueError, match=r"'bp_layers' expects nothing: rule 'dfa' serves no single layers"):
        ss.RULES.build("dfa", bp_layers=("head",))


def test_a_pass_that_gives_no_error_to_a_point_is_refused():
    network, (images, _) = ss.convert(small(), "dfa"), batch()
    with pytest.raises(PointsError, match=r"'network.relu1_1' was called outside of a pass of the converted network"):
        network.network(images)
    kept = []
    network.network.relu2_1.register_forward_hook(lambda _m, _i, output: kept.append(output))
    network(images)
    with pytest.raises(PointsError, match="before the network's outputs have one"):
        kept[0].sum().backward()
    with pytest.warns(UnreadWarning, match="trains the last one alone"):
        ss.convert(small(), "local")(images)


def test_the_suite_fails_wrong_rules_at_points():
    last = {}

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Late(DFA):
        """DFA with the error of the batch before, as a known code has it."""

        def signal(self, error, delta, matrix):
            kept, last["error"] = last.get("error", error), error
            return super().signal(kept if len(kept) == len(error) else error, delta, matrix)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Drawing(DFA):
        """DFA with a matrix that depends on no seed."""

        def matrix(self, out, generator):
            out.normal_()

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mixing(DFA):
        """DFA with the mean error of the batch."""

        def signal(self, error, delta, matrix):
            return super().signal(error.mean(dim=0).expand_as(error), delta, matrix)

    for rule, message in ((Late(), "earlier"), (Drawing(), "in pieces"), (Mixing(), "in pieces")):
        with pytest.raises(AssertionError, match=message):
            check_rule(rule)
    with pytest.raises(AssertionError, match="no gradient differs from BP's"):
        check_rule(Unchanged())


def test_the_suite_fails_local_errors_that_follow_a_later_weight():
    networks: list[nn.Module] = []

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Open(Local):
        """Local errors whose readout is the size of the head's weights."""

        def readout(self, output, matrix):
            # Of two networks that a check makes, the one under test comes first.
            head = networks[min(1, len(networks) - 1)][3]
            return super().readout(output, matrix) * head.weight.detach().norm()

    def network():
        torch.manual_seed(0)
        networks.insert(0, nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)))
        return networks[0]

    check_rule(Local(), network)
    with pytest.raises(AssertionError, match="a block follows later"):
        check_rule(Open(), network)


@pytest.mark.parametrize("name", ["dfa", "local"])
def test_a_fine_tune_trains_every_block(name):
    network = ss.BACKBONES.build("smallcnn", width=4).build(3, channels=1, seed=0)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    data = SOURCE.load(Path())
    settings = ss.FineTune(epochs=2, batch_size=16, lr=1e-2, head_lr=1e-2)
    history = ss.fine_tune(ss.convert(network, name, seed=1), data.train, SOURCE, TASK, settings, seed=0)
    assert history[-1]["loss"] < history[0]["loss"]
    assert not any(torch.equal(before[name], parameter) for name, parameter in network.named_parameters())
