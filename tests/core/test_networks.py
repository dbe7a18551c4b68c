"""Spiking, recurrent and memory networks against plain operations, torch's own modules and closed forms."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import signsym_core as ss
from signsym_core.backbones.lif import LIF, surrogate_slope
from signsym_core.backbones.mnm import activations, written
from signsym_core.microbatch import backward
from signsym_core.models.penalty import penalised
from signsym_core.registry import ParameterError

SEQUENCES = torch.rand(5, 1, 7, 6, generator=torch.Generator().manual_seed(0))
TASK = ss.TASKS.build("classification")


def built(name, size=(7, 6), **parameters):
    return ss.BACKBONES.build(name, **parameters).build(4, channels=1, size=size, seed=0)


def gradients(model, images, labels=None):
    model.zero_grad()
    loss = F.cross_entropy(model(images), torch.arange(len(images)) % 4 if labels is None else labels)
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


# A perceptron


def test_a_perceptron_is_two_matrices_and_feedback_alignment_sends_b_through_the_second():
    model = built("mlp", size=6, side=6, hidden=9)
    images, labels = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 3, 0])
    hidden, head = model.network.hidden, model.network.head
    x = (images.flatten(1) - 0.5) / 0.5
    z = torch.sigmoid(x @ hidden.weight.t() + hidden.bias)
    outputs = z @ head.weight.t() + head.bias
    assert torch.allclose(model(images), outputs, atol=1e-6)
    ss.convert(model, "fa", seed=1)
    e = (outputs.softmax(1) - F.one_hot(labels, 4)) / 5
    delta = (e @ ss.feedback(model)["network.head"]) * z * (1 - z)
    assert torch.allclose(gradients(model, images, labels)["network.hidden.weight"], delta.t() @ x, atol=1e-6)


def test_a_perceptron_averages_images_of_another_size():
    model, images = built("mlp", size=8, side=4, hidden=3), torch.rand(2, 1, 8, 8)
    assert torch.allclose(model(images), model(F.avg_pool2d(images, 2)), atol=1e-6)


# Spikes


def test_one_step_without_leak_is_a_step_activation():
    model = built("snn", size=8, width=4, steps=1, beta=0.0, slope=3.0)
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    body, head = copy.deepcopy(model.network.body), copy.deepcopy(model.network.head)

    def step(u):
        # u / (1 + k |u|) has the surrogate as its derivative.
        smooth = u / (1 + 3.0 * u.abs())
        return smooth + ((u >= 0).to(u.dtype) - smooth).detach()

    x = (images - 0.5) / 0.5
    for layer in body:
        x = step(x - 1) if isinstance(layer, LIF) else layer(x)
    outputs = head(x)
    assert torch.allclose(model(images), outputs, atol=1e-6)
    labels = torch.arange(6) % 4
    F.cross_entropy(outputs, labels).backward()
    expected = [p.grad for p in (*body.parameters(), *head.parameters())]
    for gradient, plain in zip(gradients(model, images, labels).values(), expected, strict=True):
        assert torch.allclose(gradient, plain, atol=1e-6)
    assert expected[0].abs().sum() > 0


def test_a_unit_leaks_fires_and_is_lowered_as_counted_by_hand():
    unit = LIF(beta=0.5, slope=10.0)
    # v: 0.75, then 0.375 + 0.75 = 1.125 fires and leaves 0.125, then 0.0625 + 2 = 2.0625 fires, 1.0625 is left.
    currents = [0.75, 0.75, 2.0, 0.0, 1.0]
    spikes = [float(unit(torch.tensor([current]))) for current in currents]
    # then 0.53125 stays silent, and 0.265625 + 1 fires.
    assert spikes == [0, 1, 1, 0, 1]
    unit.rest()
    assert float(unit(torch.tensor([1.0]))) == 1


def test_the_gradient_of_two_steps_is_the_surrogates_written_out():
    unit = LIF(beta=0.5, slope=2.0)
    one, other = (torch.tensor([value], requires_grad=True) for value in (1.3, 0.4))
    total = unit(one) + 3 * unit(other)
    total.backward()
    # v1 = 1.3 fires, v2 = 0.5 * 0.3 + 0.4 = 0.55; the lowering is constant, so dv2/dv1 is the leak.
    at_one, at_other = 1 / (1 + 2 * 0.3) ** 2, 1 / (1 + 2 * 0.45) ** 2
    assert float(one.grad) == pytest.approx(at_one + 3 * 0.5 * at_other, rel=1e-5)
    assert float(other.grad) == pytest.approx(3 * at_other, rel=1e-5)


def test_a_spiking_network_forgets_its_last_images_and_can_be_copied():
    model = built("snn", size=8, width=4).eval()
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    first = model(images)
    assert torch.equal(model(images), first)
    assert torch.equal(copy.deepcopy(model)(images), first)
    assert torch.equal(torch.cat([model(image[None]) for image in images]), first) or torch.allclose(
        torch.cat([model(image[None]) for image in images]), first, atol=1e-5
    )


def test_an_attack_may_have_a_slope_of_its_own_and_leaves_the_networks_alone():
    model = built("snn", size=8, width=4, slope=50.0).eval()
    images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = model(images).argmax(1)

    def adversarial(**parameters):
        settings = {"gradient": "exact", "keep": 8, **parameters}
        return ss.attack("pgd", model, images, labels, [0.3], steps=2, random_start=False, **settings).adversarial

    plain, flat = adversarial(), adversarial(spike_slope=1.0)
    assert not torch.equal(plain, flat)
    assert torch.equal(adversarial(spike_slope=50.0), plain)
    with surrogate_slope([model], 1.0):
        assert torch.equal(adversarial(), flat)
    assert {unit.slope for unit in model.modules() if isinstance(unit, LIF)} == {50.0}
    for network, slope in ((built("rnn"), 1.0), (model, 0.0)):
        with pytest.raises(
            ParameterError, match="'spike_slope' expects null, or a number above 0 for a model with LIF"
        ):
            ss.attack("fgsm", network, SEQUENCES, torch.zeros(5).long(), [0.1], spike_slope=slope)


# Recurrence


def test_backpropagation_through_time_is_that_of_torchs_rnn():
    model = built("rnn", hidden=9).double()
    images = SEQUENCES.double()
    torchs = nn.RNN(6, 9, batch_first=True).double()
    head = copy.deepcopy(model.network.head)
    with torch.no_grad():
        torchs.weight_ih_l0.copy_(model.network.inputs.weight)
        torchs.weight_hh_l0.copy_(model.network.recurrent.weight)
        torchs.bias_ih_l0.copy_(model.network.inputs.bias)
        torchs.bias_hh_l0.zero_()
    outputs = head(torchs(images[:, 0])[1][0])
    assert torch.allclose(model(images), outputs, rtol=1e-12, atol=1e-14)
    F.cross_entropy(outputs, torch.arange(5) % 4).backward()
    expected = (torchs.weight_ih_l0.grad, torchs.bias_ih_l0.grad, torchs.weight_hh_l0.grad, head.weight.grad)
    by_ours = gradients(model, images)
    names = ("inputs.weight", "inputs.bias", "recurrent.weight", "head.weight")
    for name, gradient in zip(names, expected, strict=True):
        assert torch.allclose(by_ours[f"network.{name}"], gradient, rtol=1e-10, atol=1e-14)


def test_an_lstm_of_linear_layers_is_torchs():
    model = built("lstm", hidden=5).double()
    cell, torchs = model.network.cell, nn.LSTM(6, 5, batch_first=True).double()
    with torch.no_grad():
        torchs.weight_ih_l0.copy_(cell.inputs.weight)
        torchs.weight_hh_l0.copy_(cell.recurrent.weight)
        torchs.bias_ih_l0.copy_(cell.inputs.bias)
        torchs.bias_hh_l0.zero_()
    outputs = model.network.head(torchs(SEQUENCES.double()[:, 0])[1][0][0])
    assert torch.allclose(model(SEQUENCES.double()), outputs, rtol=1e-12, atol=1e-14)


def test_the_recurrence_begins_orthogonal_and_its_bias_at_zero():
    network = built("rnn", hidden=12).network
    weight = network.recurrent.weight
    assert torch.allclose(weight @ weight.T, torch.eye(12), atol=1e-5)
    assert not network.inputs.bias.any()


@pytest.mark.parametrize("name", ["rnn", "lstm", "mnm"])
def test_a_rule_reaches_the_weights_of_every_time_step(name):
    plain, model = built(name, hidden=8), ss.convert(built(name, hidden=8), "fa", seed=1)
    labels = torch.arange(5) % 4
    assert torch.equal(plain(SEQUENCES), model(SEQUENCES))
    by_bp, by_fa = gradients(plain, SEQUENCES, labels), gradients(model, SEQUENCES, labels)
    # The head's gradient is BP's, the others pass through B.
    for key, gradient in by_bp.items():
        assert torch.allclose(by_fa[key], gradient, atol=1e-6) == ("head" in key), key


@pytest.mark.parametrize("name", ["rnn", "lstm", "mnm"])
def test_a_network_that_reads_rows_needs_their_width(name):
    backbone = ss.BACKBONES.build(name)
    with pytest.raises(ValueError, match="reads images row by row: expected their size, got none"):
        backbone.build(4, channels=1)
    assert backbone.build(4, channels=3, size=(5, 2))(torch.rand(2, 3, 5, 2)).shape == (2, 4)


# Memory


def test_one_write_into_a_linear_layer_is_the_delta_rule():
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 4, 4, generator=random, dtype=torch.float64)
    key, value = (torch.randn(3, 4, generator=random, dtype=torch.float64) for _ in range(2))
    key = key / key.norm(dim=1, keepdim=True)
    after = written([weight], key, [value], torch.ones(3, 1, dtype=torch.float64))
    assert torch.allclose(activations(after, key)[-1], value, rtol=1e-12)
    # Keys at right angles to it are read as before.
    other = torch.randn(3, 4, generator=random, dtype=torch.float64)
    other = other - (other * key).sum(dim=1, keepdim=True) * key
    assert torch.allclose(activations(after, other)[-1], activations([weight], other)[-1], rtol=1e-10)


def test_a_write_moves_every_layer_by_the_activations_before_it():
    random = torch.Generator().manual_seed(0)
    weights = [torch.randn(2, 3, 3, generator=random) for _ in range(3)]
    key, targets = torch.randn(2, 3, generator=random), [torch.randn(2, 3, generator=random) for _ in range(3)]
    rate = torch.tensor([[0.5], [0.25]])
    after = written(weights, key, targets, rate)
    for n in range(2):
        a = key[n]
        for layer in range(3):
            b = weights[layer][n] @ a if layer == 2 else torch.tanh(weights[layer][n] @ a)
            expected = weights[layer][n] - rate[n] * torch.outer(b - targets[layer][n], a)
            assert torch.allclose(after[layer][n], expected, atol=1e-6)
            a = b


def test_without_writes_the_memory_is_read_as_it_was():
    network = built("mnm", hidden=8, width=5).network.eval()
    with torch.no_grad():
        network.interface.weight[-1] = 0
        network.interface.bias[-1] = -torch.inf
    images, reading = SEQUENCES, torch.zeros(5, 5)
    h = c = torch.zeros(5, 8)
    for t in range(7):
        h, c = network.controller(torch.cat([images[:, 0, t], reading], 1), h, c)
        a = torch.tanh(network.interface(h)[:, 10:15])
        for number, weight in enumerate(network.initial.memory):
            a = a @ weight.T if number == 2 else torch.tanh(a @ weight.T)
        reading = a
    assert torch.allclose(network(images), network.head(torch.cat([h, reading], 1)), atol=1e-6)


def test_permuting_a_batch_permutes_what_comes_out_of_a_memory():
    network = built("mnm", hidden=8, width=5).eval()
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.allclose(network(SEQUENCES[order]), network(SEQUENCES)[order], atol=1e-6)
    alone = torch.cat([network(sequence[None]) for sequence in SEQUENCES])
    assert torch.allclose(alone, network(SEQUENCES), atol=1e-6)


def test_the_meta_objective_is_the_error_of_what_was_just_written():
    model = built("mnm", hidden=8, width=5, layers=1, consistency=0.5)
    network, seen = model.network.train(), []
    network.controller.register_forward_hook(lambda _, inputs, outputs: seen.append(outputs[0]))
    loss = F.cross_entropy(model(SEQUENCES), torch.arange(5) % 4)
    total = penalised(model, loss)
    errors, memory = [], network.initial.memory[0].expand(5, 5, 5)
    for h in seen:
        k, v = torch.tanh(network.interface(h)[:, :5]), torch.tanh(network.interface(h)[:, 5:10])
        rate = 2 / 5 * torch.sigmoid(network.interface(h)[:, 15:])
        before = torch.einsum("nij,nj->ni", memory, k)
        memory = memory - torch.einsum("ni,nj->nij", rate * (before - network.targets(v)), k)
        errors.append((torch.einsum("nij,nj->ni", memory, k) - v).square().mean())
    assert (total - loss).item() == pytest.approx(0.5 * sum(errors).item() / 7, rel=1e-4)
    # Used once, and by training alone.
    assert network.penalty is None
    assert penalised(model, loss) is loss
    model.eval()(SEQUENCES)
    assert network.penalty is None


def test_a_penalty_is_part_of_a_training_step_and_its_batch_is_not_divided():
    labels = torch.arange(5) % 4
    steps = []
    for consistency in (0.0, 3.0):
        model = built("mnm", hidden=8, width=5, consistency=consistency).train()
        backward(model, TASK.objective(4, 0), SEQUENCES, labels, None)
        steps.append(model.network.interface.weight.grad.clone())
        with pytest.raises(ValueError, match="expected a batch of at most 2 images, got 5: the network adds"):
            backward(model, TASK.objective(4, 0), SEQUENCES, labels, 2)
        backward(model, TASK.objective(4, 0), SEQUENCES, labels, 5)
    assert not torch.allclose(*steps)


def test_a_memory_between_forward_and_backward_can_be_copied_and_scored_without_gradients():
    model = built("mnm", hidden=8, width=5).train()
    model(SEQUENCES)
    copied = copy.deepcopy(model)
    assert copied.network.penalty is None
    with torch.no_grad():
        assert torch.equal(copied.eval()(SEQUENCES), model.eval()(SEQUENCES))


def test_the_initial_memory_is_trained_and_saved():
    model = built("mnm", hidden=8, width=5)
    assert gradients(model, SEQUENCES)["network.initial.memory"].abs().sum() > 0
    other = built("mnm", hidden=8, width=5)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(SEQUENCES), model.eval()(SEQUENCES))


def test_the_gradient_of_an_attack_runs_through_the_writes():
    model = built("mnm", hidden=8, width=5).eval().double()
    images = SEQUENCES.double()[:1]
    variable = images.clone().requires_grad_()
    model(variable)[0, 0].backward()
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        slope = (model(images + 1e-5 * direction) - model(images - 1e-5 * direction))[0, 0] / 2e-5
    assert float((variable.grad * direction).sum()) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize("name", ["rnn", "lstm", "mnm"])
def test_a_fine_tune_goes_on_with_the_numbers_of_an_undisturbed_one(name):
    source = ss.DATASETS.build("temporal_order", length=10, train_images=40, test_images=4)
    data, saved = source.load(Path()), []
    settings = ss.FineTune(epochs=2, batch_size=20, lr=1e-2, head_lr=1e-2)

    def tuned(**settings_of_run):
        model = ss.convert(built(name, size=source.sides, hidden=6), "usf", seed=0)
        ss.fine_tune(model, data.train, source, TASK, settings, seed=1, **settings_of_run)
        return model.state_dict()

    whole = tuned(on_epoch=saved.append)
    resumed = tuned(resume=saved[0])
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("snn", {"steps": 0}, "'steps' expects"),
        ("snn", {"beta": 1.5}, "'beta' expects"),
        ("snn", {"slope": 0}, "'slope' expects"),
        ("rnn", {"hidden": 0}, "'hidden' expects"),
        ("mlp", {"side": 1}, "'side' expects"),
        ("mnm", {"layers": 0}, "'layers' expects"),
        ("mnm", {"consistency": -1}, "'consistency' expects"),
    ],
)
def test_networks_that_cannot_be_are_refused(name, parameters, words):
    with pytest.raises(ParameterError, match=words):
        ss.BACKBONES.build(name, **parameters)
