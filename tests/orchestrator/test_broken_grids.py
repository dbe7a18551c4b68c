"""What is refused before anything runs: every broken grid with its file, its lines and the reasons."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import pytest
from gridfiles import BASE, base, facts, written
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.gridfile.grid import GridError, load
from signsym_core.attacks import FGSM

BROKEN = sorted((Path(__file__).parent / "broken_grids").glob("*.yaml"))


def expectations(path):
    """The problems that a broken grid declares: (line, fragment), from `# <- ...` on a line or `# line N: ...`."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
        if declared := re.match(r"# line (\d+): (.*)$", line):
            found.append((int(declared[1]), declared[2]))
        elif declared := re.search(r"# <- (.*)$", line):
            found.append((number, declared[1]))
    assert found, f"{path.name} does not say what is wrong with it"
    return [(line, fragment.replace("FILE", str(path))) for line, fragment in found]


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_a_broken_grid_is_refused_with_its_lines_and_reasons(path):
    with pytest.raises(GridError) as caught:
        load(path)
    expected = expectations(path)
    problems = caught.value.problems
    assert str(caught.value) == "\n".join(problems)
    for line, fragment in expected:
        here = [problem for problem in problems if problem.startswith(f"{path}:{line}: ")]
        assert any(fragment in problem for problem in here), f"line {line}: {fragment}\nnot in\n{caught.value}"
    assert len(problems) == len(expected), str(caught.value)
    assert all(len(problem) < 600 for problem in problems)


def test_the_base_of_the_broken_grids_is_whole(tmp_path):
    assert len(load(written(tmp_path, BASE))) == 3


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(GridError, match=re.escape(f"{tmp_path}: expected a file, got a directory")):
        load(tmp_path)
    with pytest.raises(GridError, match=r"gone\.yaml: expected a file, but there is none"):
        load(tmp_path / "gone.yaml")
    with pytest.raises(GridError, match="expected a file, but there is none"):
        load("nul\0.yaml")
    with pytest.raises(GridError, match="cannot be read: File name too long"):
        load(tmp_path / ("long" * 100))


def test_an_empty_file(tmp_path):
    with pytest.raises(GridError, match=r"grid\.yaml:1: expected a grid: .*, got null"):
        load(written(tmp_path, ""))


def test_an_attack_that_does_not_fit_its_task(tmp_path, monkeypatch):
    monkeypatch.setattr(FGSM, "tasks", frozenset({"hashing"}))
    with pytest.raises(
        GridError, match="expected an attack for task 'classification', got 'fgsm', which is for hashing"
    ):
        load(written(tmp_path, BASE))
    excluded = {**BASE, "exclude": [{"task": "classification", "attack": "fgsm"}]}
    assert [facts(cell)[-3:] for cell in load(written(tmp_path, excluded)).cells()] == [("none", "none", 0.0)]


def test_a_gradient_for_an_attack_that_asks_for_none(tmp_path, monkeypatch):
    monkeypatch.setattr(FGSM, "tags", frozenset({"linf"}))
    assert {cell.choice.gradient for cell in load(written(tmp_path, BASE)).cells()} == {"none"}
    attacks = [{"name": "fgsm", "epsilon": 0.1, "gradient": "exact"}]
    with pytest.raises(GridError, match=r"attacks\.0\.gradient: expected no gradient for attack 'fgsm'"):
        load(written(tmp_path, base(attacks=attacks)))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_grid_with_any_value_anywhere_loads_or_is_refused(data, tmp_path_factory):
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    scalars |= st.sampled_from(["frsf", "none", "pgd", "1/3", "digits", 10**400])
    values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner))
    paths = ["name", "seeds", "defaults", "exclude", "experiments", "experiments.0", "experiments.0.attacks.0.epsilon"]
    paths += [f"experiments.0.{key}" for key in ("dataset", "rule", "weights", "resources", "finetune", "overrides")]
    paths += ["experiments.0.attacks", "experiments.0.attacks.0.name", "experiments.0.attacks.0.images"]
    value = json.dumps(data.draw(values), ensure_ascii=data.draw(st.booleans()))
    path = written(tmp_path_factory.getbasetemp(), BASE)
    # Anything but a GridError fails.
    with contextlib.suppress(GridError):
        load(path, [f"{data.draw(st.sampled_from(paths))}={value}"])


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet=st.sampled_from("ab:-[]{},#&*!|>'\"%@`?\\ \n\t0.eE~\0\ud7ff\ufeff")))
def test_any_text_loads_or_is_refused(text, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(GridError):
        load(path)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seeds", "--set 'seeds': expected KEY=VALUE"),
        ("=1", "--set '=1': expected KEY=VALUE"),
        ("experiments..rule=bp", "--set 'experiments..rule=bp': expected KEY=VALUE"),
        ("name=a\nseeds: [1]", "expected KEY=VALUE"),
        ("seeds=[x]", "--set seeds: seeds.0: expected a whole number, at least 0, got 'x'"),
        ("seeds=[", "--set seeds: expected YAML, got a fault"),
        ("seeds=[\0]", "expected KEY=VALUE"),
        ("seeds=!!python/tuple [1]", "--set seeds: seeds: expected a value without a tag"),
        ("epochs=1", "--set epochs: epochs: unknown key of a grid: 'epochs'"),
        ("name.first=a", "--set name.first: name: expected a mapping or a list to set 'first' in, got 'base'"),
        ("experiments.1.rule=bp", "--set experiments.1.rule: experiments: expected a position in 0 .. 0, got '1'"),
        ("experiments.-1=bp", "--set experiments.-1: experiments: expected a position in 0 .. 0, got '-1'"),
        ("experiments.first=bp", "--set experiments.first: experiments: expected a position in 0 .. 0, got 'first'"),
        (
            "experiments.0.finetun.lr=1",
            "--set experiments.0.finetun.lr: experiments.0.finetun: unknown key of an experiment",
        ),
        (
            "experiments.0.finetune.lr=-1",
            "--set experiments.0.finetune.lr: experiments.0.finetune.lr: finetune: parameter",
        ),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(tmp_path, setting, message):
    with pytest.raises(GridError) as caught:
        load(written(tmp_path, BASE), [setting])
    assert message in str(caught.value)
    assert str(caught.value).startswith("--set ")
