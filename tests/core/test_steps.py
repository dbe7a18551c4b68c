"""A training step as a GPU takes it: B of all layers made ahead, one draw for all, batches one ahead, graphs.

What needs a GPU is left out where there is none.
"""

from __future__ import annotations

import contextlib
import copy
from collections import Counter

import pytest
import torch

import signsym_core as ss
from signsym_core.datasets import Split
from signsym_core.rules.together import Together
from signsym_core.rules.usf import USF
from signsym_core.training import replay, step
from signsym_core.training.health import Health
from signsym_core.training.shadows import Shadows

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
TASK = ss.TASKS.build("classification")
SOURCE = ss.DATASETS.build("imagefolder", path="x", size=64)


def network(rule, device="cpu", seed=3, backbone="smallcnn"):
    model = ss.BACKBONES.build(backbone).build(10, channels=3, size=64, seed=0).to(device)
    return ss.convert(model, rule, seed=seed)


def images(count, side=64, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return Split(images=pixels.to(device), labels=labels.to(device), indices=torch.arange(count))


def weights(model):
    return torch.cat([parameter.detach().flatten().cpu() for parameter in model.parameters()])


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["fa", "usf", "frsf", "brsf"])
def test_what_is_made_ahead_is_the_feedback_of_every_layer_step_after_step(rule):
    ours, theirs = network(rule).train(), network(rule).train()
    together, batch = Together(ours, None), images(8).images.float() / 255
    for _ in range(3):
        expected = {}
        theirs(batch)
        expected = ss.feedback(theirs)
        with together.ahead() as made:
            loss = ours(batch).square().sum()
            made()
            assert ss.feedback(ours).keys() == expected.keys()
            assert all(torch.equal(matrix, expected[name]) for name, matrix in ss.feedback(ours).items())
            loss.backward()
        for model in (ours, theirs):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(0.9)


@pytest.mark.parametrize("rule", ["fa", "usf", "frsf", "brsf"])
@pytest.mark.parametrize("scale", ["rms", "rms_channel", "xavier"])
def test_in_bf16_the_feedback_is_rounded_once(rule, scale):
    model = ss.convert(network("bp"), rule, scale=scale).train()
    exact = ss.feedback(model)
    with Together(model, torch.bfloat16).ahead():
        assert all(torch.equal(matrix, exact[name].bfloat16()) for name, matrix in ss.feedback(model).items())
    model.eval()
    assert all(torch.equal(matrix, exact[name]) for name, matrix in ss.feedback(model).items())


@pytest.mark.parametrize("rule", ["usf", "frsf", "brsf"])
@pytest.mark.parametrize("scale", ["rms", "rms_channel", "xavier"])
def test_rounded_weights_and_norms_that_were_measured_give_the_same_feedback(rule, scale):
    class Measured:
        norms = 0

        def weight_norm(self, weight):
            self.norms += 1
            return weight.detach().norm()

        def rounded(self, weight):
            return weight.detach().bfloat16()

    model = ss.convert(network("bp"), rule, scale=scale).train()
    exact, together = ss.feedback(model), Together(model, torch.bfloat16)
    together.measured = Measured()
    with together.ahead():
        for name, matrix in ss.feedback(model).items():
            # The norm is multiplied by one factor instead of divided by two.
            within = {"rtol": 2**-7 if scale == "rms" else 0, "atol": 0}
            torch.testing.assert_close(matrix, exact[name].bfloat16(), **within)
    assert together.measured.norms == (len(exact) if scale == "rms" else 0)


def test_a_rule_that_builds_otherwise_is_not_rounded_as_the_one_that_it_comes_from():
    class Doubled(USF):
        def build(self, weight, draw, size, out):
            super().build(weight, draw, size, out)
            out.mul_(2)

    model = network(Doubled()).train()
    exact = ss.feedback(model)
    with Together(model, torch.bfloat16).ahead():
        assert all(torch.equal(matrix, exact[name].bfloat16()) for name, matrix in ss.feedback(model).items())
    assert torch.equal(
        exact["network.fc.weight".removesuffix(".weight")], ss.feedback(network("usf"))["network.fc"] * 2
    )


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["bp", "usf"])
def test_weights_rounded_all_at_once_give_the_gradients_that_autocast_gives(rule):
    model, batch = network(rule).train(), images(8).images.float() / 255
    own, together = [id(parameter) for parameter in model.parameters()], Together(model, torch.bfloat16)

    def gradients(shadows):
        model.zero_grad()
        if shadows:
            shadows.refresh()
        with together.ahead():
            with torch.autocast("cpu", torch.bfloat16), shadows.in_place() if shadows else contextlib.nullcontext():
                outputs = model(batch).float()
            assert [id(parameter) for parameter in model.parameters()] == own
            outputs.square().sum().backward()
        if shadows:
            shadows.bring_back()
        return [parameter.grad for parameter in model.parameters()]

    usual = gradients(None)
    shadowed = gradients(Shadows(model))
    assert all(gradient.dtype == torch.float32 for gradient in shadowed)
    assert all(torch.equal(one, other) for one, other in zip(usual, shadowed, strict=True))


def test_one_draw_serves_all_layers_and_is_the_same_again_for_each():
    model = network("brsf")
    layers = [module for module in model.modules() if hasattr(module, "state")]
    shared = layers[0].state.shared
    assert all(layer.state.shared is shared for layer in layers)
    first = [shared.of(place, 7, layer.weight).clone() for place, layer in enumerate(layers)]
    other = copy.deepcopy(shared)
    other.of(0, 8, layers[0].weight)
    for place, layer in reversed(list(enumerate(layers))):
        assert torch.equal(other.of(place, 7, layer.weight), first[place])
        assert first[place].shape == layer.weight.shape
    together = torch.cat([numbers.flatten() for numbers in first])
    assert together.min() > 0
    assert together.max() < 256
    assert together.unique().numel() > 100
    assert not torch.equal(shared.of(0, 9, layers[0].weight), first[0])


def test_batches_come_in_their_order_on_a_cpu_without_being_made_ahead():
    made = []

    def batches():
        for number in range(3):
            made.append(number)
            yield (torch.tensor(number),)

    for number, (batch,) in enumerate(replay.one_ahead(batches(), torch.device("cpu"))):
        assert int(batch) == number
        assert made == list(range(number + 1))


def tuned(rule, *, backbone="resnet18", warm_up=replay.WARM_UP, resume_at=None, monkeypatch=None, **settings):
    """A fine-tune on the GPU, its weights and its checkpoints."""
    if monkeypatch is not None:
        monkeypatch.setattr(replay, "WARM_UP", warm_up)
    model, kept = network(rule, "cuda", backbone=backbone), {}
    chosen = ss.FineTune(epochs=4, batch_size=32, lr=1e-4, head_lr=1e-3, **settings)
    more = {"resume": resume_at, "on_epoch": lambda point: kept.setdefault(point.epoch, point)}
    # The last batch is a smaller one.
    history = ss.fine_tune(model, images(176, 32, "cuda"), SOURCE, TASK, chosen, seed=0, classes=10, **more)
    return model, kept, [row["loss"] for row in history]


@needs_gpu
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize(
    ("rule", "backbone"),
    [("bp", "resnet18"), ("usf", "resnet18"), ("frsf", "alexnet"), ("brsf", "resnet18"), ("brsf", "alexnet")],
)
def test_on_a_gpu_a_graph_gives_the_bits_of_its_kernels_and_a_resumed_run_those_of_an_undisturbed_one(
    rule, backbone, precision, monkeypatch
):
    by_kernel, _, losses = tuned(rule, backbone=backbone, precision=precision, warm_up=10**9, monkeypatch=monkeypatch)
    graph, kept, same = tuned(rule, backbone=backbone, precision=precision, warm_up=3, monkeypatch=monkeypatch)
    assert same == losses
    assert torch.equal(weights(graph), weights(by_kernel))
    resumed, _, again = tuned(rule, backbone=backbone, precision=precision, resume_at=kept[2])
    assert again == losses
    assert torch.equal(weights(resumed), weights(graph))
    if rule != "bp":
        assert all(torch.equal(b, ss.feedback(graph)[name]) for name, b in ss.feedback(resumed).items())


@needs_gpu
def test_on_a_gpu_a_step_is_recorded_and_waits_for_nothing(monkeypatch):
    recorded, usual = Counter(), replay.Replay._record

    def record(self, shape, inputs):
        recorded[shape] += 1
        torch.cuda.set_sync_debug_mode("default")
        result = usual(self, shape, inputs)
        torch.cuda.set_sync_debug_mode("error")
        return result

    monkeypatch.setattr(replay.Replay, "_record", record)
    model, split = network("brsf", "cuda"), images(320, 32, "cuda")
    take, steps = step.Step.__call__, []

    def watched(self, *arguments):
        steps.append(torch.cuda.set_sync_debug_mode("error" if len(steps) else "default"))
        return take(self, *arguments)

    monkeypatch.setattr(step.Step, "__call__", watched)
    # Within one epoch: at its end the host waits for the loss.
    look = Health.look

    def looked(self):
        torch.cuda.set_sync_debug_mode("default")
        look(self)

    monkeypatch.setattr(Health, "look", looked)
    try:
        ss.fine_tune(model, split, SOURCE, TASK, ss.FineTune(epochs=1, batch_size=10), seed=0, classes=10)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(steps) == 32
    assert list(recorded.values()) == [1]
