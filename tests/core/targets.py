"""Small models and images for the tests of attacks, and parameters under which no attack takes long."""

from __future__ import annotations

import torch
from torch import nn

import signsym_core as ss

#: What makes the members that ask a model thousands of times small enough for a test.
QUICK = {
    "apgd": {"steps": 5},
    "fab": {"steps": 2, "targets": 2},
    "autoattack": {"steps": 3, "targets": 1, "queries": 8},
    "square": {"queries": 15},
    "hopskipjump": {"steps": 1, "first_evaluations": 20, "queries": 150},
    "boundary": {"steps": 12, "queries": 150},
    "smoothing": {"sigma": 1.0, "selection": 3, "samples": 20},
}

#: The same for attacks of Foolbox.
QUICK_FOOLBOX = {
    "L2CarliniWagnerAttack": {"steps": 15, "binary_search_steps": 3, "stepsize": 0.05, "initial_const": 1.0},
    "EADAttack": {"steps": 15, "binary_search_steps": 3, "initial_stepsize": 0.05, "initial_const": 1.0},
    "L2AdamProjectedGradientDescentAttack": {"steps": 4, "rel_stepsize": 0.5},
    "LinfAdamProjectedGradientDescentAttack": {"steps": 4, "rel_stepsize": 0.5},
    "L2ProjectedGradientDescentAttack": {"steps": 4, "rel_stepsize": 0.5},
    "LinfProjectedGradientDescentAttack": {"steps": 4, "rel_stepsize": 0.5},
    "L2ClippingAwareRepeatedAdditiveGaussianNoiseAttack": {"repeats": 5},
    "L2ClippingAwareRepeatedAdditiveUniformNoiseAttack": {"repeats": 5},
    "L2RepeatedAdditiveGaussianNoiseAttack": {"repeats": 5},
    "L2RepeatedAdditiveUniformNoiseAttack": {"repeats": 5},
    "LinfRepeatedAdditiveUniformNoiseAttack": {"repeats": 5},
    "LinearSearchBlendedUniformNoiseAttack": {"directions": 20, "steps": 10},
    "LinearSearchContrastReductionAttack": {"steps": 20},
    "BinarySearchContrastReductionAttack": {"binary_search_steps": 5},
    "GaussianBlurAttack": {"steps": 10},
    "SaltAndPepperNoiseAttack": {"steps": 20},
    "VirtualAdversarialAttack": {"steps": 3},
    "HopSkipJumpAttack": {"steps": 1, "initial_gradient_eval_steps": 10},
    "BoundaryAttack": {"steps": 10},
    "PointwiseAttack": {"l2_binary_search": False},
    "L2BrendelBethgeAttack": {"steps": 2},
    "LinfinityBrendelBethgeAttack": {"steps": 2},
    "NewtonFoolAttack": {"steps": 10, "stepsize": 0.1},
    "DDNAttack": {"steps": 10},
    "L2FMNAttack": {"steps": 10},
    "LInfFMNAttack": {"steps": 10},
}


def small(rule="usf", seed=0, **parameters):
    """A network with two convolutions for images of 10 x 10 pixels and 5 classes, under `rule`."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5)]
    network = nn.Sequential(*layers)
    with torch.no_grad():
        # Without this a random network sees one class in every image.
        layers[-1].bias -= network(torch.rand(200, 3, 10, 10)).mean(0)
    return ss.convert(network, rule, seed=3, **parameters).eval()


def right(model, n=40):
    """Random images, with the classes that the model gives them."""
    images = torch.rand(n, 3, 10, 10, generator=torch.Generator().manual_seed(1))
    return images, model(images).argmax(1)


def slope(model, images, labels):
    """The gradient of the summed cross-entropy, as the model's own backward pass has it."""
    variable = images.clone().requires_grad_()
    nn.functional.cross_entropy(model(variable), labels, reduction="sum").backward()
    return variable.grad


def apgd_written_out(start, look, project, steepest, epsilon, steps):
    """Algorithm 1 of APGD's paper for one image from `start` [1, ...].

    `look` gives an iterate's loss, its gradient and whether it is lost; `steepest` makes a step of size 1 of one.
    The result is the iterate of the highest loss, a lost one first.
    """
    loss, gradient, lost = look(start)
    losses, seen = [loss], [(lost, loss, start)]
    best_loss, best, best_gradient = loss, start, gradient
    eta, previous, current = 2 * epsilon, start, start
    p, checkpoints = [0.0, 0.22], []
    while p[-1] < 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    checkpoints = [0, *[round(share * steps) for share in p[1:]]]
    halved_before, loss_before = True, best_loss
    for k in range(1, steps + 1):
        alpha = 1.0 if k == 1 else 0.75
        z = project(current + eta * steepest(gradient))
        moved = project(current + alpha * (z - current) + (1 - alpha) * (current - previous))
        previous, current = current, moved
        loss, gradient, lost = look(current)
        losses.append(loss)
        seen.append((lost, loss, current))
        if loss > best_loss:
            best_loss, best, best_gradient = loss, current, gradient
        if k in checkpoints:
            since = checkpoints[checkpoints.index(k) - 1]
            rises = sum(losses[i + 1] > losses[i] for i in range(since, k))
            halve = rises <= 0.75 * (k - since) or (not halved_before and loss_before >= best_loss)
            halved_before, loss_before = halve, best_loss
            if halve:
                eta, current, gradient = eta / 2, best, best_gradient
    return max(seen, key=lambda entry: entry[:2])[2][0]
