"""Attacks of Foolbox as members: the images that Foolbox itself makes, our gradients, balls, counts and errors."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys

import foolbox
import numpy as np
import pytest
import torch
from foolbox.attacks import brendel_bethge
from targets import QUICK_FOOLBOX, right, small

import signsym_core as ss
from signsym_core import extensions
from signsym_core.attacks.foolboxclasses import BY_GRADIENT, BY_OUTPUTS, DETERMINISTIC, classes, refusal
from signsym_core.backbones import BACKBONES
from signsym_core.registry import ParameterError, UnknownNameError
from signsym_core.testing import check_attack

pytestmark = pytest.mark.slow

SEED = 5
#: Compiled by numba for a minute before they run; one test runs what is compiled as Python.
COMPILED = {"L2BrendelBethgeAttack", "LinfinityBrendelBethgeAttack"}
SERVED = sorted((BY_GRADIENT | BY_OUTPUTS) - COMPILED)


def built(name, **parameters):
    return ss.ATTACKS.build(f"foolbox:{name}", **QUICK_FOOLBOX.get(name, {}) | parameters)


def radii(attack):
    if attack.name == "foolbox:PointwiseAttack":
        return [0.0, 2.0]
    return [0.0, 0.02, 0.2] if attack.norm == "linf" else [0.0, 0.3, 2.0]


def outcome_of(attack, model, images, labels, gradient="exact", **settings):
    source = {"gradient": gradient} if "white-box" in attack.tags else {}
    return ss.attack(attack, model, images, labels, radii(attack), seed=SEED, keep=len(images), **source, **settings)


def foolbox_itself(attack, plain, images, labels):
    """Which images Foolbox alone breaks, bool [e, n], and what its `run` returns for the last radius."""
    name = attack.name.removeprefix("foolbox:")
    parameters = dict(QUICK_FOOLBOX.get(name, {}))
    theirs = classes()[name](**parameters)
    if "distance" in attack.parameters() or name == "EADAttack":
        # Here its epsilons are radii in L2; Foolbox bounds EAD in L1, and asks for the norm of some others.
        theirs.__class__ = type(name, (type(theirs),), {"distance": foolbox.distances.l2})
    model = foolbox.PyTorchModel(plain, bounds=(0, 1), device="cpu")
    clean, *others = radii(attack)
    assert clean == 0
    lost = [model(images).argmax(1) != labels]
    for epsilon in others:
        torch.manual_seed(SEED)
        np.random.seed(SEED)
        raw, _, success = theirs(model, images, labels, epsilons=[epsilon])
        lost.append(success[0])
    return torch.stack(lost), raw[0]


def networks():
    """Three networks for images of 10 x 10 pixels: two plain ones, and one with batch normalisation."""
    yield "two convolutions", small
    yield "other weights", lambda rule: small(rule, seed=1)

    def with_normalisation(rule):
        model = BACKBONES.build("smallcnn", width=4).build(5, channels=3, size=10, seed=2)
        with torch.no_grad():
            random = torch.rand(200, 3, 10, 10, generator=torch.Generator().manual_seed(3))
            model.train()(random)
            model.eval().network.fc.bias -= model(random).mean(0)
        return ss.convert(model, rule, seed=3)

    yield "batch normalisation", with_normalisation


NETWORKS = dict(networks())


@pytest.mark.filterwarnings("ignore::signsym_core.evaluation.attack.WeakAttackWarning")
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", [name for name in SERVED if name != "PointwiseAttack"])
def test_outcomes_are_foolboxs_on_the_plain_network_image_by_image(name, network):
    model = NETWORKS[network]("frsf")
    images, labels = right(model, 8)
    compared(built(name), model, ss.revert(NETWORKS[network]("frsf")), images, labels)


def test_outcomes_of_the_pointwise_attack_are_foolboxs():
    """Its queries grow with the square of the pixels, so that the images are small."""

    def network():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(36, 5)
        )

    model = ss.convert(network(), "frsf", seed=3).eval()
    images = torch.rand(3, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    compared(built("PointwiseAttack"), model, network().eval(), images, model(images).argmax(1))


def compared(attack, model, plain, images, labels):
    """Hold the outcomes and smallest perturbations of an attack on `model` to Foolbox's on its plain network."""
    # One image that is lost already.
    labels[0] = (labels[0] + 1) % 5
    lost, raw = foolbox_itself(attack, plain, images, labels)
    outcome = outcome_of(attack, model, images, labels)
    assert torch.equal(~outcome.robust, lost)
    if outcome.distances is None:
        return
    found = outcome.distances.isfinite()
    expected = foolbox.distances.LpDistance(2 if attack.norm == "l2" else math.inf)(images, raw)
    assert torch.allclose(outcome.distances[1:][found[1:]], expected[1:][found[1:]].double(), atol=1e-5)
    assert outcome.distances[0] == 0


@pytest.fixture
def interpreted(monkeypatch):
    """Brendel and Bethge's optimizer as the Python that numba would compile for a minute."""
    pytest.importorskip("numba", reason="an environment from before numba was a dependency")
    for name in ("BFGSB", "LinfOptimizer"):
        compiled = getattr(brendel_bethge, name).class_type
        methods = {method: function.py_func for method, function in compiled.jit_methods.items()}
        monkeypatch.setattr(brendel_bethge, name, type(name, (), methods))


def test_brendel_and_bethges_attack_is_foolboxs_too(interpreted):
    attack, model = built("LinfinityBrendelBethgeAttack"), small("frsf")
    images, labels = (values[1:] for values in right(model, 3))
    lost, raw = foolbox_itself(attack, ss.revert(small("frsf")), images, labels)
    exact, feedback = outcome_of(attack, model, images, labels), outcome_of(attack, model, images, labels, "feedback")
    assert torch.equal(~exact.robust, lost)
    assert torch.allclose(exact.distances, (raw - images).abs().flatten(1).amax(1).double(), atol=1e-5)
    assert lost.any()
    assert not torch.equal(exact.adversarial, feedback.adversarial)


@pytest.mark.filterwarnings("ignore::signsym_core.evaluation.attack.WeakAttackWarning")
@pytest.mark.parametrize("name", sorted(BY_GRADIENT - COMPILED))
def test_feedback_gives_other_images_where_b_is_not_w(name):
    model, same = small("fa"), small("bp")
    images, labels = right(model, 8)
    attack = built(name)
    exact, feedback = (outcome_of(attack, model, images, labels, source) for source in ("exact", "feedback"))
    assert not torch.equal(exact.adversarial, feedback.adversarial)
    # With B = W both are one.
    assert torch.equal(outcome_of(attack, same, images, labels, "feedback").adversarial, exact.adversarial)


# The pointwise attack looks at each image thousands of times, so it is held to Foolbox's outcomes alone.
@pytest.mark.parametrize("name", [name for name in SERVED if name != "PointwiseAttack"])
def test_the_conformance_suite(name):
    check_attack(built(name))


@pytest.mark.filterwarnings("ignore::signsym_core.evaluation.attack.WeakAttackWarning")
@pytest.mark.parametrize("name", SERVED)
def test_global_randomness_is_drawn_from_only_where_the_tags_say_so_and_put_back(name, monkeypatch):
    attack, model = built(name), small("usf")
    images, labels = right(model, 2)
    if "random_start" in attack.parameters():
        attack = built(name, random_start=True)
    drew = []

    def states():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), np.random.get_state()[2]

    original = attack.foolbox.run

    def looked_at(self, *arguments, **settings):
        before = states()
        result = original(self, *arguments, **settings)
        drew.append(states() != before)
        return result

    monkeypatch.setattr(attack.foolbox, "run", looked_at)
    before = states()
    first = outcome_of(attack, model, images, labels, "feedback")
    assert states() == before
    torch.rand(7)
    np.random.rand(3)
    again = outcome_of(attack, model, images, labels, "feedback")
    assert torch.equal(first.adversarial, again.adversarial)
    assert any(drew) == ("random" in attack.tags)


def test_a_random_attack_follows_its_seed():
    model = small("usf")
    images, labels = right(model, 8)
    one, same, other = (
        ss.attack("foolbox:LinfAdditiveUniformNoiseAttack", model, images, labels, [0.1], seed=seed, keep=8)
        for seed in (0, 0, 1)
    )
    assert torch.equal(one.adversarial, same.adversarial)
    assert not torch.equal(one.adversarial, other.adversarial)


def test_an_image_without_a_start_is_left_alone_and_the_others_are_attacked():
    class Stubborn(torch.nn.Module):
        """Sees class 0 wherever the first pixel is red, which noise blended in for others never changes."""

        def forward(self, images):
            other = (images.flatten(1).mean(1) > 0.9).float()
            return torch.stack([1 - other, other], dim=1)

    images = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.1
    images[3] = 0.99
    labels = torch.zeros(5, dtype=torch.int64)
    labels[3] = 1
    attack = built("HopSkipJumpAttack", init_attack="foolbox:LinearSearchBlendedUniformNoiseAttack")
    outcome = ss.attack(attack, Stubborn(), images, labels, [0.5, 4.0], seed=0)
    assert outcome.distances.isinf().tolist() == [True, True, True, False, True]
    assert outcome.failed_starts == 4
    assert outcome.robust[1].tolist() == [True, True, True, False, True]


def test_every_class_is_served_or_refused_with_a_reason():
    for name, cls in classes().items():
        if refusal(cls) is None:
            member = ss.ATTACKS[f"foolbox:{name}"]
            assert member.name == f"foolbox:{cls.__name__}"
            assert member is ss.ATTACKS[f"foolbox:{cls.__name__}"]
        else:
            with pytest.raises(UnknownNameError, match=r"cannot be run here: (its budget|it needs|it turns)"):
                ss.ATTACKS[f"foolbox:{name}"]
    # A class that nobody here has judged is not taken for one without gradients.
    assert "not registered" in refusal(type("NewAttack", (foolbox.attacks.LinfPGD,), {}))
    assert set(classes()) >= BY_GRADIENT | BY_OUTPUTS
    assert DETERMINISTIC <= BY_GRADIENT | BY_OUTPUTS


def test_its_parameters_are_those_of_foolboxs_signature():
    attack = ss.ATTACKS.build("foolbox:PGD", steps=7)
    assert attack.name == "foolbox:LinfProjectedGradientDescentAttack"
    expected = {"rel_stepsize": 0.01 / 0.3, "abs_stepsize": None, "steps": 7, "random_start": True}
    assert {key: attack.parameters()[key] for key in expected} == expected
    assert attack.parameters()["version"] == foolbox.__version__
    assert (attack.steps_taken(), attack.step(0.3)) == (7, pytest.approx(0.01))
    assert ss.ATTACKS.build("foolbox:HopSkipJumpAttack").norm == "l2"
    assert ss.ATTACKS.build("foolbox:HopSkipJumpAttack", constraint="linf").norm == "linf"
    assert ss.ATTACKS.build("foolbox:InversionAttack", distance="linf").norm == "linf"
    assert pickle.loads(pickle.dumps(attack)) == attack


@pytest.mark.parametrize(
    ("name", "parameters", "error", "message"),
    [
        ("foolbox:L2DeepFool", {}, UnknownNameError, "did you mean 'foolbox:L2DeepFoolAttack'"),
        ("foolbox:", {}, UnknownNameError, "unknown attack: 'foolbox:'"),
        ("foolbax:PGD", {}, UnknownNameError, "unknown attack: 'foolbax:PGD'"),
        ("foolbox:L1PGD", {}, UnknownNameError, "L0 or L1"),
        ("foolbox:SpatialAttack", {}, UnknownNameError, "no epsilon"),
        ("foolbox:DDNAttack", {"step": 3}, UnknownNameError, "did you mean 'steps'"),
        ("foolbox:DDNAttack", {"steps": 0}, ParameterError, "'steps' expects a whole number, at least 1, got 0"),
        ("foolbox:DDNAttack", {"steps": "3"}, ParameterError, "'steps' expects a whole number, got '3'"),
        ("foolbox:DDNAttack", {"version": "3.0.0"}, ParameterError, "that of the installed Foolbox"),
        ("foolbox:VirtualAdversarialAttack", {}, ParameterError, "'steps' expects a value"),
        ("foolbox:L2DeepFoolAttack", {"loss": "hinge"}, ParameterError, "'logits' or one of 'crossentropy'"),
        ("foolbox:BoundaryAttack", {"init_attack": "foolbox:PGD"}, ParameterError, "that minimises"),
        ("foolbox:BoundaryAttack", {"init_attack": "pgd"}, ParameterError, "that minimises"),
        ("foolbox:BoundaryAttack", {"tensorboard": "x"}, UnknownNameError, "unknown parameter"),
    ],
)
def test_errors_say_what_is_wrong(name, parameters, error, message):
    with pytest.raises(error, match=message.replace("(", r"\(")):
        ss.ATTACKS.build(name, **parameters)


def test_several_labels_are_refused():
    model = small()
    images, _ = right(model, 4)
    with pytest.raises(ValueError, match="one class for each image"):
        ss.attack("foolbox:FGSM", model, images, torch.ones(4, 5), [0.1])


def test_an_own_member_goes_before_a_librarys(monkeypatch):
    assert extensions.VARIABLE == "SIGNSYM_EXTENSIONS"
    assert "foolbox:FGSM" not in ss.ATTACKS.names
    assert "foolbox:FGSM" in ss.ATTACKS
    assert "foolbox:FGS" not in ss.ATTACKS


def test_foolbox_is_imported_when_one_of_its_attacks_is_named_also_without_git():
    code = (
        "import sys; import signsym_core as ss; ss.ATTACKS['pgd']; assert 'foolbox' not in sys.modules;"
        "ss.ATTACKS['foolbox:PGD']; assert 'foolbox' in sys.modules; import os; "
        "assert 'GIT_PYTHON_REFRESH' not in os.environ"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONWARNINGS": "error", "PATH": "/nowhere"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
