"""Learned feedback against closed forms: what B tends to, when it is taught, and that nothing else moves it."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import warnings

import pytest
import targets
import torch
import torch.nn.functional as F
from torch import nn

import signsym_core as ss
from signsym_core.backbones.weights import WeightsError, load_body, load_whole_file
from signsym_core.datasets import Split
from signsym_core.rules import LearnedRule, Lesson, lowrank
from signsym_core.rules.convert import converted, redrawn
from signsym_core.rules.held import UntaughtWarning, held_parameters, parameter_groups, weights_of
from signsym_core.rules.kp import KP
from signsym_core.rules.state import ZeroFeedbackError
from signsym_core.rules.together import Together
from signsym_core.testing import check_rule
from signsym_core.training.alignment import layer_alignment

TASK = ss.TASKS.build("classification")
SOURCE = ss.DATASETS.build("digits")
LEARNED = [
    pytest.param("kp", {}, id="kp"),
    pytest.param("wm", {}, id="wm"),
    pytest.param("sym", {}, id="sym"),
    *[pytest.param("lowrank", {"rank": 3, "update": u}, id=f"lowrank-{u}") for u in ("normative", "oja", "local")],
]


def network(seed=0):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)]
    return nn.Sequential(*layers)


def digits(count=64):
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 1, 8, 8), dtype=torch.uint8, generator=random)
    return Split(images=images, labels=(images[:, 0, 0, 0] > 127).long(), indices=torch.arange(count))


def small(rule, seed=0, **parameters):
    return ss.convert(
        ss.BACKBONES.build("smallcnn", width=4).build(2, channels=1, seed=seed), rule, seed=5, **parameters
    )


def train(model, **settings):
    settings = {"epochs": 2, "batch_size": 16, "lr": 1e-3, "head_lr": 1e-2, "optimizer": "adamw"} | settings
    more = {name: settings.pop(name) for name in ("resume", "on_epoch", "micro_batch") if name in settings}
    return ss.fine_tune(model, digits(), SOURCE, TASK, ss.FineTune(**settings), seed=1, **more)


def tensors(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def weight(model, name):
    return model.get_submodule(name).weight.detach()


def angle(b, w):
    return math.degrees(math.acos(float((b * w).sum() / (b.norm() * w.norm()))))


def steps(model, optimizer, count, images=None, labels=None):
    images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(3)) if images is None else images
    labels = torch.arange(len(images)) % 3 if labels is None else labels
    for _ in range(count):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()


# Kolen and Pollack


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("start", ["random", "signs"])
def test_the_difference_between_b_and_w_decays_with_the_weights(start, fused):
    model = ss.convert(network(), "kp", seed=1, start=start)
    before = {name: b - weight(model, name) for name, b in ss.feedback(model).items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=3.0, fused=fused)
    steps(model, optimizer, 30)
    for name, b in ss.feedback(model).items():
        # In every entry, not in norm alone.
        assert torch.allclose(b - weight(model, name), before[name] * (1 - 6e-3) ** 30, rtol=1e-4, atol=1e-6)
        ratio = float((b - weight(model, name)).norm() / before[name].norm())
        assert ratio == pytest.approx((1 - 6e-3) ** 30, rel=1e-4)


def test_kolen_pollack_in_a_fine_tune_has_each_groups_rate():
    model = small("kp")
    before = {name: (b - weight(model, name)).norm() for name, b in ss.feedback(model).items()}
    train(model, weight_decay=1.0)
    for name, b in ss.feedback(model).items():
        rate = 1e-2 if name == "network.fc" else 1e-3
        ratio = float((b - weight(model, name)).norm() / before[name])
        assert ratio == pytest.approx((1 - rate) ** 8, rel=1e-4), name


def test_kolen_pollack_begins_as_feedback_alignment_or_as_usf():
    for rule, start in (("fa", "random"), ("usf", "signs")):
        for scale in ("rms", "rms_channel", "xavier", "unit"):
            expected = ss.feedback(ss.convert(network(), rule, seed=7, scale=scale))
            assert equal(ss.feedback(ss.convert(network(), "kp", seed=7, scale=scale, start=start)), expected)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromW(KP):
    """KP that begins with B = W."""

    def begin(self, weight, generator):
        return {"B": weight.clone()}


def test_with_b_that_is_w_kolen_pollack_is_bp_bit_for_bit():
    model, plain = small(FromW()), small("bp")
    train(model)
    train(plain)
    assert equal({name: p.detach() for name, p in weights_of(model)}, {n: p.detach() for n, p in weights_of(plain)})
    assert all(torch.equal(b, weight(model, name)) for name, b in ss.feedback(model).items())


def test_coupled_decay_is_refused_before_anything_is_trained():
    model = small("kp")
    before = tensors(model)
    with pytest.raises(ValueError, match=r"layer 'network.*rule 'kp'.*expected optimizer 'adamw' or weight_decay 0"):
        train(model, optimizer="adam")
    assert equal(tensors(model), before)
    train(model, optimizer="adam", weight_decay=0.0, epochs=1)
    converted_network = ss.convert(network(), "kp")
    with pytest.raises(ValueError, match=r"Adam couples.*expected AdamW, SGD or weight_decay=0"):
        steps(converted_network, torch.optim.Adam(converted_network.parameters(), weight_decay=0.1), 1)


def test_b_must_be_trained_with_its_weight():
    model = ss.convert(network(), "kp")
    apart = [{"params": [p for _, p in weights_of(model)]}, {"params": [p for _, p, _ in held_parameters(model)]}]
    with pytest.raises(ValueError, match="layer '0', rule 'kp': its B must be in the parameter group of its weight"):
        steps(model, torch.optim.SGD(apart, lr=0.1), 1)
    plain = network()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for rule in ("kp", "lowrank"):
        with pytest.raises(ValueError, match="make it after the conversion"):
            steps(ss.convert(plain, rule), optimizer, 1)


def test_a_step_that_computes_its_gradients_itself_is_refused():
    model = ss.convert(network(), "kp")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps(model, optimizer, 1)
    with pytest.raises(ValueError, match="without a closure"):
        optimizer.step(lambda: 0.0)


@pytest.mark.parametrize("parameters", [{}, {"start": "signs"}], ids=["random", "signs"])
def test_the_suite_fails_a_kolen_pollack_that_forgets_the_decay(parameters):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Forgetful(LearnedRule):
        """∂B = ∂W, and no decay."""

        name, label, citation = "forgetful", "forgetful", "a test"
        start: str = "random"

        def begin(self, weight, generator):
            return KP(start=self.start).begin(weight, generator)

        def learn(self, held, lesson):
            return {"B": lesson.gradient}

    with pytest.raises(AssertionError, match="forgetful: B does not come near W"):
        check_rule(Forgetful(**parameters))


def test_the_suite_passes_the_same_with_the_decay():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Decaying(LearnedRule):
        """∂B = ∂W, with W's decay."""

        name, label, citation = "decaying", "decaying", "a test"
        decays = True

        def learn(self, held, lesson):
            return {"B": lesson.gradient}

    check_rule(Decaying())


def test_the_suite_fails_kolen_pollack_with_a_group_of_its_own():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Apart(KP):
        """KP whose B does not decay."""

        decays = False

    with pytest.raises(AssertionError, match="refuses the groups"):
        check_rule(Apart())


# Weight mirrors and symmetric alignment


def still(model, rate=0.0):
    return torch.optim.SGD(model.parameters(), lr=rate)


@pytest.mark.parametrize(
    ("rate", "samples", "start"),
    [(0.1, 128, "random"), (0.02, 128, "mirrored"), (0.1, 1024, "random"), (0.1, 128, "mirrored")],
)
def test_the_angle_of_a_mirror_is_that_of_its_formula(rate, samples, start):
    torch.manual_seed(0)
    layers = [nn.Conv2d(8, 32, 3), nn.ReLU(), nn.Conv2d(32, 16, 3, bias=False), nn.Flatten(), nn.Linear(64, 32)]
    model = ss.convert(nn.Sequential(*layers), "wm", seed=2, rate=rate, samples=samples, start=start)
    steps(model, still(model), 1 if start == "mirrored" else 40, torch.rand(2, 8, 6, 6))
    for name, b in ss.feedback(model).items():
        w = weight(model, name)
        expected = math.degrees(math.atan(math.sqrt(rate / (2 - rate) * (w[0].numel() + 1) / samples)))
        assert angle(b, w) == pytest.approx(expected, rel=0.1), (name, angle(b, w), expected)
        assert float(b.norm() / w.norm()) == pytest.approx(1 / math.cos(math.radians(expected)), rel=0.05)


def test_a_mirror_at_full_rate_with_many_samples_is_bp():
    model, plain = ss.convert(network(), "wm", rate=1.0, samples=100_000, start="mirrored"), network()
    images = torch.rand(8, 1, 8, 8)
    for network_ in (model, plain):
        network_(images).square().sum().backward()
    for (_, ours), theirs in zip(weights_of(model), plain.parameters(), strict=True):
        assert float((ours.grad - theirs.grad).norm() / theirs.grad.norm()) < 0.06


def test_noise_depends_on_the_lesson_and_not_on_passes():
    one, other = (ss.convert(network(), "wm", seed=4) for _ in range(2))
    for model, passes in ((one, 1), (other, 3)):
        optimizer = still(model, 0.01)
        for _ in range(2):
            optimizer.zero_grad()
            for _ in range(passes):
                (model(torch.ones(4, 1, 8, 8)).square().sum() / passes).backward()
            optimizer.step()
    assert all(torch.allclose(ss.feedback(one)[name], b, atol=1e-6) for name, b in ss.feedback(other).items())


def test_symmetric_alignment_comes_near_at_its_rate():
    model = ss.convert(network(), "sym", rate=0.25)
    before = {name: b - weight(model, name) for name, b in ss.feedback(model).items()}
    steps(model, still(model), 6)
    for name, b in ss.feedback(model).items():
        assert torch.allclose(b - weight(model, name), before[name] * 0.75**6, atol=1e-6)


def frozen_first(rule, **parameters):
    model = ss.convert(network(), rule, **parameters)
    model[2].weight.requires_grad_(False)
    return model


def test_b_of_a_frozen_layer_is_taught_where_its_rule_learns_from_w_alone():
    for rule, parameters, near in (
        ("sym", {"rate": 0.25}, 0.75**6),
        ("wm", {"rate": 0.25, "samples": 100_000}, 0.75**6),
        ("lowrank", {"rank": 54, "start": "random"}, 0.9),
        # Without ∂W: W is not moved, nor is B.
        ("kp", {}, 1.0),
        ("lowrank", {"update": "local"}, 1.0),
        ("lowrank", {"update": "oja"}, 1.0),
    ):
        model = frozen_first(rule, **parameters)
        w, before = weight(model, "2").clone(), ss.feedback(model)["2"]
        steps(model, torch.optim.AdamW(parameter_groups(model, list(model.parameters())), lr=1e-2), 6)
        after = ss.feedback(model)["2"]
        assert torch.equal(weight(model, "2"), w)
        if near == 1.0:
            assert torch.equal(after, before), rule
        elif rule == "lowrank":
            assert float((after - w).norm() / (before - w).norm()) < near
        else:
            assert torch.allclose(after - w, (before - w) * near, atol=3e-3), rule


def test_a_frozen_layer_that_no_optimiser_has_is_told_of():
    for rule, told in (("sym", True), ("kp", False)):
        model = frozen_first(rule)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            steps(model, optimizer, 2)
        assert [w.category for w in caught] == [UntaughtWarning] * told
        assert not told or "layer '2': rule 'sym'" in str(caught[0].message)
    model = frozen_first("sym")
    two = [torch.optim.SGD(module.parameters(), lr=0.1) for module in (model[5], model[:5])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            F.cross_entropy(model(torch.rand(4, 1, 8, 8)), torch.arange(4) % 3).backward()
            for optimizer in two:
                optimizer.step()


# Low rank


def test_frozen_feedback_is_the_best_of_its_rank():
    model = ss.convert(network(), "lowrank", rank=2, update="frozen")
    for name, b in ss.feedback(model).items():
        w = weight(model, name)
        rest = torch.linalg.svdvals(w.flatten(1).double())[2:].square().sum()
        assert float((b - w).square().sum()) == pytest.approx(float(rest), rel=1e-5)
    before = ss.feedback(model)
    steps(model, torch.optim.AdamW(parameter_groups(model, list(model.parameters())), lr=0.01), 5)
    assert equal(ss.feedback(model), before)


@pytest.mark.parametrize("update", ["normative", "local", "oja", "frozen"])
@pytest.mark.parametrize("start", ["svd", "random"])
def test_the_rank_stays(update, start):
    model = ss.convert(network(), "lowrank", rank=2, update=update, start=start)
    steps(model, torch.optim.AdamW(parameter_groups(model, list(model.parameters())), lr=0.01), 8)
    for b in ss.feedback(model).values():
        values = torch.linalg.svdvals(b.flatten(1).double())
        assert float(values[2:].max()) < 1e-6 * float(values[0])


def test_full_rank_is_bp():
    images = torch.rand(8, 1, 8, 8)
    model, plain = ss.convert(network(), "lowrank", rank=99), network()
    for network_ in (model, plain):
        network_(images).square().sum().backward()
    for (_, ours), theirs in zip(weights_of(model), plain.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)
    steps(model, torch.optim.AdamW(parameter_groups(model, list(model.parameters())), lr=1e-4), 30)
    for name, b in ss.feedback(model).items():
        assert angle(b, weight(model, name)) < 1


def test_normative_gradients_are_those_of_the_distance_and_local_ones_those_of_the_loss():
    for update in ("normative", "local"):
        model = ss.convert(nn.Sequential(nn.Conv2d(2, 5, 3)), "lowrank", rank=2, update=update)
        state = model[0].state
        p, q = (t.requires_grad_() for t in state.held.tensors().values())
        model(torch.rand(3, 2, 5, 5)).square().sum().backward()
        w, gradient = weight(model, "0").flatten(1), model[0].weight.grad.flatten(1)
        loss = (p @ q - w).square().sum() / 2 if update == "normative" else (p @ q * gradient).sum()
        expected = torch.autograd.grad(loss, [p, q])
        torch.optim.SGD(model.parameters(), lr=0.0).step()
        for parameter, theirs in zip(state.held.parameters(), expected, strict=True):
            assert torch.allclose(parameter.grad, theirs, rtol=1e-4, atol=1e-5)


def test_ojas_gradient_is_that_of_its_formula_and_its_columns_become_orthonormal():
    torch.manual_seed(0)
    model = ss.convert(nn.Sequential(nn.Linear(7, 6)), "lowrank", rank=2, update="oja", start="random").train()
    held, mixing = model[0].state.held, torch.randn(6, 6)
    optimizer = torch.optim.SGD(held.parameters(), lr=0.0)
    optimizer.add_param_group({"params": [p for _, p in weights_of(model)]})
    for number in range(150):
        optimizer.zero_grad()
        delta, p = torch.randn(32, 6) @ mixing, held.P.detach().clone()
        # In pieces, which add up to the sums of the whole batch.
        for piece in delta.chunk(1 + number % 3):
            model(torch.rand(len(piece), 7)).backward(piece)
        optimizer.step()
        d = (delta - delta.mean(0)) / delta.std(0, correction=0).max()
        expected = -(torch.eye(6) - p @ p.t()) @ d.t() @ d @ p
        assert torch.allclose(held.P.grad, expected, rtol=1e-3, atol=1e-3)
        with torch.no_grad():
            held.P.sub_(held.P.grad, alpha=0.02)
    assert torch.allclose(held.P.t() @ held.P, torch.eye(2), atol=0.02)


def test_sums_of_a_convolution_go_over_positions_and_logging_is_no_lesson():
    model = ss.convert(nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten()), "lowrank", rank=1, update="oja").train()
    images, labels = torch.rand(4, 1, 3, 3), torch.arange(4)
    objective = TASK.objective(12, 0)
    layer_alignment(model, objective, images, labels)
    assert model[0].state.held.sums == {}
    delta = torch.randn(4, 12)
    model(images).backward(delta)
    rows = delta.view(4, 3, 2, 2).permute(0, 2, 3, 1).reshape(-1, 3)
    sums = model[0].state.held.sums
    assert float(sums["count"]) == 16
    assert torch.allclose(sums["sum"], rows.sum(0), atol=1e-5)
    assert torch.allclose(sums["products"], rows.t() @ rows @ model[0].feedback.P, atol=1e-4)


# Held tensors as a state of the layer


@pytest.mark.parametrize("fused", [True, False])
def test_a_gradient_with_other_strides_lands_where_it_belongs(fused):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Transposed(LearnedRule):
        """∂B = 1, 2, 3 .. along its rows, from a tensor that lies along its columns; B begins column by column."""

        name, label, citation = "transposed", "transposed", "a test"

        def begin(self, weight, generator):
            return {"B": torch.ones(weight.shape[::-1]).t()}

        def learn(self, held, lesson):
            return {"B": torch.arange(1.0, 1 + held["B"].numel()).view(held["B"].shape).t().contiguous().t()}

    model = ss.convert(nn.Sequential(nn.Linear(3, 5)), Transposed())
    assert model[0].feedback.B.is_contiguous()
    model(torch.ones(2, 3)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0, fused=fused).step()
    assert torch.equal(ss.feedback(model)["0"], 1 - torch.arange(1.0, 16).view(5, 3))


def test_factors_do_not_decay_and_b_of_kolen_pollack_does():
    for rule, decays in (("lowrank", False), ("kp", True)):
        model = ss.convert(network(), rule)
        groups = parameter_groups(model, list(model.parameters()), lr=0.1, weight_decay=0.5)
        optimizer = torch.optim.SGD(groups, lr=0.1, weight_decay=0.5)
        decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        assert {decay[id(p)] for _, p, _ in held_parameters(model)} == {0.5 if decays else 0.0}
        assert {decay[id(p)] for _, p in weights_of(model)} == {0.5}
        steps(model, optimizer, 1)
        # Torch's usual way: every parameter decays.
        whole = torch.optim.AdamW(model.parameters(), weight_decay=0.5)
        refused = pytest.raises(ValueError, match=r"layer '0'.*do not decay.*weight_decay=0")
        with contextlib.nullcontext() if decays else refused:
            steps(model, whole, 1)
    untrained = ss.convert(network(), "wm")
    (group,) = parameter_groups(untrained, list(untrained.parameters()))
    assert [id(p) for p in group["params"]] == [id(p) for _, p in weights_of(untrained)]


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "parameters"), LEARNED)
def test_a_fine_tune_goes_on_from_a_checkpoint_and_in_pieces(rule, parameters):
    model, checkpoints = small(rule, **parameters), []
    train(model, on_epoch=checkpoints.append)
    resumed = small(rule, seed=1, **parameters)
    train(resumed, resume=checkpoints[0])
    assert equal(tensors(resumed), tensors(model))
    lessons = [layer.state.draws for _, layer in converted(model)]
    assert lessons == [8] * len(lessons)
    pieces = ss.convert(network(), rule, seed=5, **parameters)
    undivided = copy.deepcopy(pieces)
    for net, micro_batch in ((pieces, 5), (undivided, None)):
        model = ss.backbones.Model(net, "5", (0.5,), (0.5,))
        # No moments, which would make large differences of small gradients.
        train(model, micro_batch=micro_batch, epochs=1, beta1=0.0, beta2=0.0, lr=0.0, head_lr=0.0)
        assert {layer.state.draws for _, layer in converted(model)} == {4}
    assert all(torch.allclose(b, ss.feedback(pieces)[name], atol=1e-5) for name, b in ss.feedback(undivided).items())


@pytest.mark.parametrize(("rule", "parameters"), LEARNED)
def test_attacks_redraws_and_moves_leave_held_tensors_alone(rule, parameters):
    model = ss.convert(network(), rule, **parameters)
    steps(model, torch.optim.SGD(parameter_groups(model, list(model.parameters())), lr=0.01), 2)
    before, matrices = tensors(model), ss.feedback(model)
    images, labels = torch.rand(6, 1, 8, 8), torch.arange(6) % 3
    for gradient in ("feedback", "exact", "eot"):
        ss.attack("pgd", model, images, labels, [0.1], gradient=gradient, steps=2)
    with redrawn(model, 3):
        assert equal(ss.feedback(model), matrices)
    assert equal(tensors(model), before)
    moved = copy.deepcopy(model).double()
    for name, b in ss.feedback(moved).items():
        assert b.dtype == torch.float64
        assert torch.allclose(b, matrices[name].double(), atol=1e-6)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    assert all(torch.allclose(b, matrices[name], atol=1e-6) for name, b in ss.feedback(last).items())
    steps(last, torch.optim.SGD(parameter_groups(last, list(last.parameters())), lr=0.01, fused=True), 2)
    steps(model, torch.optim.SGD(parameter_groups(model, list(model.parameters())), lr=0.01), 2)
    for name, b in ss.feedback(last).items():
        assert torch.allclose(b, ss.feedback(model)[name], atol=1e-5)


def test_layers_that_share_a_weight_share_what_is_held():
    torch.manual_seed(0)
    layers = [nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 3)]
    layers[2].weight = layers[0].weight
    model = ss.convert(nn.Sequential(*layers), "wm", seed=1)
    assert model[0].feedback is model[2].feedback
    assert len(list(model.parameters())) == 7
    optimizer = still(model, 0.1)
    for twin in (model, copy.deepcopy(model)):
        optimizer = still(twin, 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            twin(torch.ones(2, 4)).sum().backward()
            optimizer.step()
        assert [layer.state.draws for _, layer in converted(twin)] == [3, 3, 3]
        assert twin[0].feedback is twin[2].feedback


def test_a_layer_used_several_times_learns_once():
    layer = nn.Linear(4, 4)
    model = ss.convert(nn.Sequential(layer, nn.Tanh(), layer, nn.Linear(4, 3)), "kp")
    steps(model, still(model, 0.1), 1, torch.ones(2, 4), torch.zeros(2, dtype=torch.long))
    assert [layer.state.draws for _, layer in converted(model)] == [1, 1]


def test_a_b_of_zeros_is_refused():
    empty = nn.Linear(4, 4)
    nn.init.zeros_(empty.weight)
    for rule in ("kp", "wm", "lowrank"):
        with pytest.raises(ZeroFeedbackError, match=r"layer '0': rule .* begins with a B of zeros"):
            ss.convert(nn.Sequential(empty), rule)
    ss.convert(nn.Sequential(empty), "kp", scale="xavier")


def test_a_gpu_does_not_record_steps_that_teach():
    assert not Together(small("kp"), None).serves
    assert Together(small("usf"), None).serves


@pytest.mark.parametrize("rule", ["kp", "wm", "lowrank"])
def test_files_of_weights_with_and_without_held_tensors(rule, tmp_path):
    from safetensors.torch import save_file

    trained, file = small(rule), tmp_path / "trained.safetensors"
    train(trained, epochs=1)
    save_file({name: tensor.contiguous() for name, tensor in trained.state_dict().items()}, file)
    whole = small(rule, seed=3)
    load_whole_file(whole, file)
    assert equal(tensors(whole), tensors(trained))
    # The body of any network, under any rule or none.
    for other in ("bp", "usf", "lowrank"):
        model = small(other, seed=4)
        before = ss.feedback(model) if other == "lowrank" else None
        load_body(model, trained.state_dict(), "a file")
        assert torch.equal(weight(model, "network.conv1_1"), weight(trained, "network.conv1_1"))
        assert before is None or equal(ss.feedback(model), before)
    plain = ss.revert(small("bp"))
    model = small(rule, seed=6)
    held = {name: p.detach().clone() for name, p, _ in held_parameters(model)}
    save_file(plain.state_dict(), file)
    load_whole_file(model, file)
    assert equal({name: p.detach() for name, p, _ in held_parameters(model)}, held)
    with pytest.raises(RuntimeError, match=r"Missing key.*feedback"):
        model.load_state_dict({n: t for n, t in trained.state_dict().items() if ".fc.feedback." not in n})
    save_file({n: t for n, t in tensors(trained).items() if ".fc.feedback." not in n}, file)
    with pytest.raises(WeightsError, match=r"missing fc\.feedback"):
        load_whole_file(small(rule), file)


def test_gradients_that_do_not_fit_are_refused():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Wrong(LearnedRule):
        """A gradient of one number."""

        name, label, citation = "wrong", "wrong", "a test"
        called: str = "B"

        def learn(self, held, lesson: Lesson):
            return {self.called: torch.ones(1)}

    for called, message in (("B", r"layer '0': expected gradients of \[3, 4\] for 'B'"), ("C", "holds no ..C..")):
        model = ss.convert(nn.Sequential(nn.Linear(4, 3)), Wrong(called=called))
        with pytest.raises(ValueError, match=message):
            steps(model, still(model), 1, torch.ones(2, 4), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("shape", [(40, 90), (90, 40)])
def test_large_matrices_are_approximated_nearly_as_well(shape, monkeypatch):
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    rest = torch.linalg.svdvals(rows.double())[4:].square().sum()
    for largest, tolerance in ((1024, 1e-5), (16, 0.005)):
        monkeypatch.setattr(lowrank, "EXACT", largest)
        left, right = lowrank.truncated(rows, 4, torch.Generator().manual_seed(1))
        assert float((left @ right - rows).square().sum()) == pytest.approx(float(rest), rel=tolerance)
        assert torch.allclose(left.t() @ left, torch.eye(4), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["kp", "wm", "sym", "lowrank"])
def test_the_audit_says_something_of_every_learned_rule(rule):
    model = targets.small(rule)
    images, labels = targets.right(model, 100)
    verdict = ss.audit(model, images, labels, ["8/255"], steps=3, queries=5)
    assert verdict.kind in ("sound", "weak attack", "masked gradient", "undecided")
    assert verdict.made
