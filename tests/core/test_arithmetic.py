"""Precision of products and determinism of kernels: settings of fine-tunes and of attacks, which put back what was."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

import signsym_core as ss
from signsym_core.arithmetic import arithmetic, effective
from signsym_core.registry import identity

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
SOURCE = ss.DATASETS.build("digits", train_images=40, test_images=20, classes=[0, 1, 2])
DATA = SOURCE.load(Path())


def flags():
    cudnn = torch.backends.cudnn
    return cudnn.deterministic, cudnn.benchmark, cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision


@pytest.mark.parametrize(
    ("precision", "deterministic", "expected"),
    [
        ("float32", True, (True, False, "ieee", "ieee")),
        ("tf32", True, (True, False, "tf32", "ieee")),
        ("bf16", False, (False, False, "tf32", "ieee")),
    ],
)
def test_a_gpu_gets_its_kernels_inside_the_block_and_what_was_before_it_afterwards(precision, deterministic, expected):
    matmul = torch.backends.cuda.matmul
    usual = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        before, inside = flags(), []

        def fail():
            inside.append(flags())
            raise KeyError

        with pytest.raises(KeyError), arithmetic(precision, deterministic, CUDA):
            fail()
        assert inside == [expected]
        assert flags() == before
    finally:
        matmul.fp32_precision = usual


def test_a_cpu_keeps_its_kernels():
    before = flags()
    with arithmetic("float32", True, CPU):
        assert flags() == before


def test_bf16_runs_the_model_alone_in_bfloat16_and_gives_its_outputs_in_float32():
    torch.manual_seed(0)
    model, images = nn.Linear(8, 3), torch.rand(5, 8)
    exact = model(images)
    with arithmetic("bf16", True, CPU, model):
        outputs = model(images)
        assert (images @ images.T).dtype == torch.float32
    by_hand = nn.functional.linear(images.bfloat16(), model.weight.bfloat16(), model.bias.bfloat16()).float()
    assert outputs.dtype == torch.float32
    assert torch.equal(outputs, by_hand)
    assert not torch.equal(outputs, exact)
    assert torch.equal(model(images), exact)


def test_a_processor_has_no_tf32():
    assert [effective(p, CPU) for p in ("float32", "tf32", "bf16")] == ["float32", "float32", "bf16"]
    assert [effective(p, CUDA) for p in ("float32", "tf32", "bf16")] == ["float32", "tf32", "bf16"]


def trained(**settings):
    model = ss.convert(ss.BACKBONES.build("smallcnn", width=4).build(3, channels=1, size=8, seed=0), "brsf", seed=0)
    tuned = ss.FineTune(epochs=2, batch_size=8, lr=1e-3, head_lr=1e-3, **settings)
    ss.fine_tune(model, DATA.train, SOURCE, ss.TASKS.build("classification"), tuned, seed=0)
    return model


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_a_fine_tune_in_bf16_keeps_float32_weights_and_feedback_and_stays_near():
    one, other, low = trained(), trained(precision="float32", deterministic=False), trained(precision="bf16")
    assert torch.equal(weights(one), weights(other))
    assert all(parameter.dtype == torch.float32 for parameter in low.parameters())
    assert all(matrix.dtype == torch.float32 for matrix in ss.feedback(low).values())
    distance = (weights(low) - weights(one)).abs().max()
    assert 0 < distance < 0.02


def test_an_attack_in_bf16_is_another_attack_and_the_default_is_float32():
    model = trained()
    images = DATA.test.images.float() / 255

    def attacked(**parameters):
        return ss.attack("pgd", model, images, DATA.test.labels, [0.05], gradient="exact", keep=20, **parameters)

    usual, exact, low = attacked(), attacked(precision="float32"), attacked(precision="bf16")
    assert torch.equal(usual.adversarial, exact.adversarial)
    assert not torch.equal(usual.adversarial, low.adversarial)


@pytest.mark.parametrize(
    "settings", [ss.FineTune(), *(attack() for attack in ss.ATTACKS)], ids=lambda s: type(s).__name__
)
def test_keys_hold_what_is_not_as_it_was_before_these_settings(settings):
    assert not {"precision", "deterministic"} & set(identity(settings))
    changed = dataclasses.replace(settings, precision="bf16", deterministic=False)
    assert {"precision": "bf16", "deterministic": False}.items() <= identity(changed).items()
