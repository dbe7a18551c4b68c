"""Averaging the state dicts of converted models: weights are averaged, and no feedback becomes another one unseen."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import signsym_core as ss
from signsym_core.rules import record
from signsym_core.rules.convert import converted

RULES = [rule.name for rule in ss.RULES]


def network(rule, seed=0, draws=0):
    torch.manual_seed(seed)
    model = ss.convert(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), rule, seed=7)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(draws):
        model(torch.rand(4, 6)).square().sum().backward()
        optimizer.step()
    return model


def assert_average(model, one, other):
    for p, a, b in zip(model.parameters(), one.parameters(), other.parameters(), strict=True):
        assert torch.allclose(p, (a + b) / 2)


def soup(states):
    return {name: sum(0.5 * state[name] for state in states) for name in states[0]}


@pytest.mark.parametrize("rule", RULES)
def test_soups_average_the_weights_and_keep_a_feedback(rule):
    one, other = network(rule, 1, 2), network(rule, 1, 2)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.5)
    model = network(rule, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.load_state_dict(soup([one.state_dict(), other.state_dict()]))
    assert_average(model, one, other)
    assert [layer.state.draws for _, layer in converted(model)] == [layer.state.draws for _, layer in converted(one)]
    assert model(torch.rand(4, 6)).square().sum().backward() is None


def test_an_average_of_different_records_is_refused_with_a_warning_and_the_weights_are_loaded():
    # 12 and 1 draws: their numbers have different lengths.
    one, other = network("brsf", 1, 12), network("brsf", 2, 1)
    model = network("brsf", 3, 5)
    before = [layer.state.draws for _, layer in converted(model)]
    with pytest.warns(UserWarning, match="layer '0'.*averaging"):
        model.load_state_dict(soup([one.state_dict(), other.state_dict()]))
    assert_average(model, one, other)
    assert [layer.state.draws for _, layer in converted(model)] == before


@pytest.mark.parametrize("rule", RULES)
def test_moving_averages_over_state_dicts(rule):
    """timm's ModelEmaV2 and V3 in their own words: every value of one state dict is written from both."""
    model, average = network(rule, 1, 12), network(rule, 2, 1)
    expected = [(p + q) / 2 for p, q in zip(model.parameters(), average.parameters(), strict=True)]
    for ours, theirs in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        ours.copy_(0.5 * ours + 0.5 * theirs)
    assert all(torch.allclose(p, e) for p, e in zip(average.parameters(), expected, strict=True))
    again = [(p + q) / 2 for p, q in zip(model.parameters(), average.parameters(), strict=True)]
    torch._foreach_lerp_(list(average.state_dict().values()), list(model.state_dict().values()), 0.5)
    assert all(torch.allclose(p, e, atol=1e-6) for p, e in zip(average.parameters(), again, strict=True))
    for name, matrix in ss.feedback(average).items():
        if "sign-symmetric" in ss.RULES[rule].tags:
            assert torch.equal(matrix.sign(), average.get_submodule(name).weight.sign())


@pytest.mark.parametrize("rule", RULES)
def test_torchs_averaged_model(rule):
    model = network(rule, 1, 3)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    for seed in range(3):
        with torch.no_grad():
            for p in model.parameters():
                p.data.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)))
        averaged.update_parameters(model)
        fresh = ss.convert(ss.revert(copy.deepcopy(averaged.module)), rule, seed=7)
        if ss.RULES[rule].tags & {"exact", "sign-symmetric"} and rule != "brsf":
            ours, theirs = ss.feedback(averaged.module.eval()), ss.feedback(fresh)
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    model.load_state_dict(averaged.module.state_dict())


@pytest.mark.parametrize("rule", ["fa", "brsf", "usf"])
@pytest.mark.parametrize("scale", ["rms", "rms_channel"])
def test_records_have_one_length_and_survive_casts(rule, scale):
    models = [network(ss.RULES.build(rule, scale=scale), seed, draws) for seed, draws in ((1, 0), (2, 12))]
    for key in ("0._extra_state", "2._extra_state"):
        records = [model.state_dict()[key] for model in models]
        assert records[0].shape == records[1].shape
        for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.uint8):
            assert record.read(records[1].to(dtype)) == record.read(records[1])
        assert record.read(records[1])["draws"] == converted(models[1])[0][1].state.draws
        assert record.read(sum(records[1] * (1 / 3) for _ in range(3))) == record.read(records[1])


def test_a_record_that_was_changed_is_none():
    written = network("brsf", 1, 3).state_dict()["0._extra_state"]
    assert record.read(written) is not None
    for place in range(len(written)):
        changed = written.clone()
        changed[place] += 1
        fields = record.read(changed)
        assert fields is None or fields == record.read(written), f"letter {place} may change unseen"
    assert record.read(written * float("nan")) is None


def test_records_of_the_first_kind_are_read():
    text = (
        '{"draws": 4, "frozen_size": null, "index": 0, "parameters": {"bp_layers": [], "redraw": "update", "scale": '
        '"rms"}, "rule": "brsf", "seed": 11, "update_due": true}'
    )
    state = network("brsf").state_dict() | {
        f"{name}._extra_state": torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) for name in ("0", "2")
    }
    model = network("brsf", 3)
    model.load_state_dict(state)
    layer = converted(model)[0][1]
    assert (layer.state.draws, layer.state.seed) == (4, 11)
    model(torch.rand(4, 6)).sum().backward()
    assert layer.state.draws == 5
