"""FAB: its projection against a linear programme, and its smallest perturbations against closed forms and APGD."""

from __future__ import annotations

import pytest
import torch
from targets import right, small
from torch import nn

import signsym_core as ss
from signsym_core.attacks.ball import sizes
from signsym_core.attacks.fab import onto_plane


def test_the_projection_is_the_linear_programmes():
    """Minimise t over (δ, t) with w · δ = c, -t ≤ δ ≤ t, 0 ≤ x + δ ≤ 1."""
    from scipy.optimize import linprog

    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 6, generator=generator).double()
    slope = torch.randn(40, 6, generator=generator).double()
    slope[::5, 2] = 0
    missing = torch.randn(40, generator=generator).double()
    ours = onto_plane(x, slope, missing)
    possible = 0
    for row in range(40):
        upper = [[*(1.0 if i == j else 0.0 for j in range(6)), -1.0] for i in range(6)]
        lower = [[*(-1.0 if i == j else 0.0 for j in range(6)), -1.0] for i in range(6)]
        bounds = [*((-float(v), 1 - float(v)) for v in x[row]), (0, None)]
        equal = [[*slope[row].tolist(), 0.0]]
        best = linprog([0] * 6 + [1], upper + lower, [0] * 12, equal, [float(missing[row])], bounds)
        moved = x[row] + ours[row]
        assert moved.min() >= -1e-12
        assert moved.max() <= 1 + 1e-12
        if best.status == 0:
            possible += 1
            assert float(slope[row] @ ours[row]) == pytest.approx(float(missing[row]), abs=1e-9)
            assert float(ours[row].abs().max()) == pytest.approx(best.fun, abs=1e-9)
        else:
            gained = float(slope[row] @ ours[row]) * float(missing[row].sign())
            room = torch.where(slope[row] * missing[row] > 0, 1 - x[row], x[row])
            assert gained == pytest.approx(float((slope[row].abs() * room).sum()))
    assert 10 < possible < 40


def test_a_linear_model_falls_at_its_smallest_perturbation():
    """It is |margin| / ||w||_1 in L∞, over the classes, where no pixel meets the bounds of [0, 1]."""
    torch.manual_seed(0)
    linear = nn.Linear(48, 4).double()
    model = nn.Sequential(nn.Flatten(), linear)
    images = torch.rand(20, 3, 4, 4).double() * 0.2 + 0.4
    outputs = model(images).detach()
    labels = outputs.argmax(1)
    apart = (linear.weight[labels][:, None] - linear.weight[None]).abs().sum(2).detach()
    margins = outputs.gather(1, labels[:, None]) - outputs
    smallest = torch.where(apart > 0, margins / apart.clamp(min=1e-12), torch.inf).amin(1)
    outcome = ss.attack("fab", model, images, labels, [1.0], steps=30, targets=3, keep=20)
    found = sizes(outcome.adversarial[0] - images)
    assert not outcome.robust.any()
    assert (found >= smallest * 0.9999).all()
    assert (found <= smallest * 1.01).all()


@pytest.mark.slow
def test_one_run_serves_every_epsilon_and_is_about_as_strong_as_apgd():
    model = small("bp")
    images, labels = right(model)
    epsilons = [0.005, 0.01, 0.02, 0.04]
    outcome = ss.attack("fab", model, images, labels, epsilons, steps=20, targets=4)
    assert outcome.images_backward == 20 * 4 * 40
    apgd = ss.attack("apgd", model, images, labels, epsilons, steps=20, loss="targeted-dlr", targets=4)
    assert abs(int(outcome.robust.sum()) - int(apgd.robust.sum())) <= 4
    assert (outcome.robust[:-1].int() >= outcome.robust[1:].int()).all()


def test_targets_share_passes_where_there_is_room_and_no_image_notices():
    model = small("usf").double()
    images, labels = right(small("usf"), 6)
    labels[2] = (labels[2] + 1) % 5
    given = {"steps": 6, "targets": 4, "keep": 6}
    together = ss.attack("fab", model, images.double(), labels, [0.01, 0.1], **given)
    by_two = ss.attack("fab", model, images.double(), labels, [0.01, 0.1], micro_batch=14, **given)
    in_turn = ss.attack("fab", model, images.double(), labels, [0.01, 0.1], micro_batch=5, **given)
    for outcome in (by_two, in_turn):
        assert torch.allclose(outcome.adversarial, together.adversarial, atol=1e-12)
        assert torch.equal(outcome.robust, together.robust)
        assert outcome.images_backward == together.images_backward == 5 * 6 * 4
    # Two passes a step: the gradient, and the look at the new image.
    assert [outcome.backwards for outcome in (together, by_two, in_turn)] == [6, 12, 24]


def test_an_image_that_is_lost_already_and_one_without_a_gradient_stay_as_they_are():
    class Flat(nn.Module):
        def forward(self, x):
            return torch.stack([x.flatten(1).sum(1) * 0 + 9, x.flatten(1).sum(1) * 0], dim=1)

    images, labels = torch.rand(4, 1, 4, 4), torch.tensor([0, 0, 1, 1])
    outcome = ss.attack("fab", Flat(), images, labels, [0.1], steps=3, keep=4)
    assert outcome.robust[0].tolist() == [True, True, False, False]
    assert torch.equal(outcome.adversarial[0, 2:], images[2:])
    assert outcome.adversarial.isfinite().all()
