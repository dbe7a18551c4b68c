"""Local representation alignment against autograd, closed forms of its formulas, and a step of backpropagation."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import signsym_core as ss
from signsym_core.models.recurrence import rows_of
from signsym_core.registry import ParameterError
from signsym_core.rules.lra import LRA

TASK = ss.TASKS.build("classification")
OBJECTIVE = TASK.objective(4, 0)
IMAGES = torch.rand(5, 1, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.arange(5) % 4


def built(units=7, scale=1.0):
    model = ss.BACKBONES.build("rnn", hidden=units).build(4, channels=1, size=(6, 3), seed=0).double()
    with torch.no_grad():
        model.network.inputs.weight.mul_(scale)
        model.network.inputs.bias.normal_(std=0.1 * scale, generator=torch.Generator().manual_seed(1))
    return model


def stepped(rule, model):
    model.zero_grad()
    loss = rule.step(model, OBJECTIVE, IMAGES, LABELS, None)
    assert float(loss) == pytest.approx(F.cross_entropy(model(IMAGES), LABELS).item())
    return {name.removeprefix("network."): p.grad.clone() for name, p in model.named_parameters()}


def omega(delta, weight, h):
    """Ω = (|δ W ⊙ tanh'(h)| / |δ| - 1)², norms over the batch."""
    return ((delta @ weight * (1 - torch.tanh(h).square())).norm() / delta.norm() - 1).square()


def written_out(rule, model):
    """The formulas of the text with autograd for every derivative, in the order in which they are written."""
    network = model.network
    u, v, b, w, c = (
        p.detach().clone().requires_grad_()
        for p in (
            network.recurrent.weight,
            network.inputs.weight,
            network.inputs.bias,
            network.head.weight,
            network.head.bias,
        )
    )
    x = rows_of(IMAGES)

    def limited(g):
        return g * min(1.0, rule.clip / float(g.norm())) if rule.clip and float(g.norm()) > 0 else g

    def by(loss, variable):
        return torch.autograd.grad(loss, variable, retain_graph=True)[0]

    def local(z, target):
        squares = (z - target) ** 2
        return torch.log(1 + squares).mean() if rule.local_loss == "log" else squares.mean()

    def link(delta, weight, h):
        return rule.alpha * omega(delta.detach(), weight, h)

    h, z = [], [torch.zeros(5, len(u), dtype=torch.float64)]
    for t in range(6):
        h.append((z[-1] @ u.T + x[t] @ v.T + b).detach())
        z.append(torch.tanh(h[-1]))
    outputs = z[6] @ w.T + c
    loss = F.cross_entropy(outputs, LABELS)
    grads = {"head.bias": by(loss, c)}
    grads["head.weight"] = limited(by(loss, w) + by(link(by(loss, outputs), w, h[5]), w))
    moved = h[5]
    for _ in range(rule.inner_steps):
        moved = moved.detach().requires_grad_()
        outputs = torch.tanh(moved) @ w.T + c
        loss = F.cross_entropy(outputs, LABELS)
        moved = moved - rule.gamma * limited(by(loss, moved) + by(link(by(loss, outputs), w, moved), moved))
    target, above = torch.tanh(moved).detach(), None
    totals = [torch.zeros_like(p) for p in (u, v, b)]
    for t in range(5, 0, -1):
        sums = z[t].detach() @ u.T + x[t] @ v.T + b
        e = local(torch.tanh(sums), target)
        by_u, by_v, by_b = by(e, u), by(e, v), by(e, b)
        if above is not None:
            extra = link(above, u, sums)
            by_u, by_v = by_u + by(extra, u), by_v + by(extra, v)
        for total, gradient in zip(totals, (limited(by_u), limited(by_v), by_b), strict=True):
            total += gradient
        above, moved = by(e, sums), h[t - 1]
        for _ in range(rule.inner_steps):
            moved = moved.detach().requires_grad_()
            above_sums = torch.tanh(moved) @ u.T + x[t] @ v.T + b
            e = local(torch.tanh(above_sums), target)
            moved = moved - rule.gamma * limited(by(e, moved) + by(link(by(e, above_sums), u, moved), moved))
        target = torch.tanh(moved).detach()
    return grads | dict(zip(("recurrent.weight", "inputs.weight", "inputs.bias"), totals, strict=True))


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"alpha": 0.0},
        {"local_loss": "mse", "inner_steps": 3, "gamma": 0.3},
        {"clip": 0.01, "alpha": 0.5},
        {"clip": 0.0, "inner_steps": 2, "gamma": 10.0},
    ],
    ids=str,
)
def test_a_step_is_that_of_the_formulas_written_out_with_autograd(parameters):
    rule, model = LRA(**parameters), built()
    expected, got = written_out(rule, model), stepped(rule, model)
    assert set(got) == set(expected)
    for name, gradient in expected.items():
        assert torch.allclose(got[name], gradient, rtol=1e-9, atol=1e-13), name
        assert gradient.abs().sum() > 0, name


def test_the_last_step_of_small_moves_is_backpropagations():
    """K = 1, gamma near 0, mean squares, no clip: e_T's gradient by h_T is 2 gamma / (n d) tanh'(h)² ∂E/∂h_T."""
    gamma, model = 1e-7, built(scale=0.05)
    rule = LRA(inner_steps=1, gamma=gamma, local_loss="mse", clip=0.0, alpha=0.0)
    network = model.network
    states = [torch.zeros(5, 7, dtype=torch.float64)]
    for row in rows_of(IMAGES):
        sums = network.inputs(row) + network.recurrent(states[-1])
        states.append(torch.tanh(sums))
    (by_sums,) = torch.autograd.grad(F.cross_entropy(network.head(states[-1]), LABELS), sums)
    slopes = 1 - states[-1].square()
    # Earlier steps move by powers of gamma, so that their share vanishes beside this one.
    expected = (2 * gamma / (5 * 7)) * (by_sums * slopes.square()).T @ states[-2]
    got = stepped(rule, model)["recurrent.weight"]
    assert torch.allclose(got, expected.detach(), rtol=1e-5, atol=1e-14)
    # So parallel to BP's as far as the slopes are alike.
    by_bp = by_sums.T @ states[-2]
    assert ((got * by_bp).sum() / (got.norm() * by_bp.norm())).item() > 0.999


def test_the_head_learns_as_by_backpropagation():
    model = built()
    got = stepped(LRA(alpha=0.0, clip=0.0), model)
    model.zero_grad()
    F.cross_entropy(model(IMAGES), LABELS).backward()
    assert torch.allclose(got["head.weight"], model.network.head.weight.grad, rtol=1e-10)
    assert torch.allclose(got["head.bias"], model.network.head.bias.grad, rtol=1e-10)


def test_the_regulariser_is_zero_for_an_orthogonal_matrix_at_rest_and_not_elsewhere():
    delta = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = built().network.recurrent.weight.detach()
    assert float(omega(delta, weight, torch.zeros(5, 7, dtype=torch.float64))) < 1e-12
    assert float(omega(delta, 2 * weight, torch.zeros(5, 7, dtype=torch.float64))) == pytest.approx(1.0)
    assert float(omega(delta, weight, torch.full((5, 7), 0.5, dtype=torch.float64))) == pytest.approx(
        math.tanh(0.5) ** 4
    )


def test_a_regulariser_without_a_gradient_to_keep_adds_nothing():
    rule, zero = LRA(), torch.zeros(5, 7, dtype=torch.float64)
    weight = built().network.recurrent.weight.detach()
    assert not rule._by_sums(zero, weight, zero).any()
    assert not rule._omega_by_weight(zero, weight, zero).any()


def test_the_codes_variant_leaves_the_text_where_it_is_said_to():
    model = built()
    text, code = stepped(LRA(), model), stepped(LRA(variant="code"), model)
    # Without the regulariser the head is what it is in both.
    plain, plain_code = (stepped(LRA(variant=variant, alpha=0.0), model) for variant in ("text", "code"))
    assert torch.allclose(plain["head.weight"], plain_code["head.weight"], rtol=1e-10)
    for gradients in (text, code, plain_code):
        assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert not torch.allclose(text["head.weight"], code["head.weight"])
    assert not torch.allclose(plain["recurrent.weight"], plain_code["recurrent.weight"])
    with pytest.raises(ValueError, match=r"at most as many sequences in a batch as units, 4: .* got 5"):
        stepped(LRA(variant="code"), built(units=4))


def test_other_networks_and_pieces_of_a_batch_are_refused():
    model = ss.convert(ss.BACKBONES.build("smallcnn", width=2).build(4, channels=1, size=8), "lra")
    with pytest.raises(ValueError, match="rule 'lra' trains the backbone 'rnn' alone, got Sequential"):
        LRA().step(model, OBJECTIVE, torch.rand(2, 1, 8, 8), LABELS[:2], None)
    with pytest.raises(ValueError, match="expects a batch of at most 2 images, got 5"):
        LRA().step(built(), OBJECTIVE, IMAGES, LABELS, 2)
    for wrong in ({"gamma": 0}, {"inner_steps": 0}, {"clip": -1}, {"alpha": -1}, {"variant": "paper"}):
        with pytest.raises(ParameterError, match=f"{next(iter(wrong))!r} expects"):
            ss.RULES.build("lra", **wrong)


def test_a_fine_tune_by_steps_goes_on_with_the_numbers_of_an_undisturbed_one_and_learns():
    source = ss.DATASETS.build("permutation", length=3, classes=[0, 1], train_images=60, test_images=20)
    data, saved = source.load(Path()), []
    settings = ss.FineTune(epochs=3, batch_size=20, lr=1e-2, head_lr=1e-2)

    def tuned(**settings_of_run):
        network = ss.BACKBONES.build("rnn", hidden=20).build(2, channels=1, size=source.sides, seed=0)
        model = ss.convert(network, "lra", seed=0)
        history = ss.fine_tune(model, data.train, source, TASK, settings, seed=1, **settings_of_run)
        return model.state_dict(), history

    whole, history = tuned(on_epoch=saved.append)
    resumed, _ = tuned(resume=saved[0])
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]
