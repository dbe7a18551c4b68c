"""Completion in the shells themselves: the script is sourced, and asked as the Tab key asks."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from orchestrator.commands.completion import completion

#: A completion of bash is a function that reads COMP_WORDS and fills COMPREPLY.
ASK = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_signsym; printf "%s\\n" "${COMPREPLY[@]}"'


@pytest.fixture
def completed(tmp_path):
    """What bash offers for the last of some words, in a folder with a file and a folder."""
    (tmp_path / "script.bash").write_text(completion("bash"))
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "runs").mkdir()

    def ask(*words):
        command = ["bash", "-c", ASK, "bash", "script.bash", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.stderr == ""
        return set(done.stdout.split())

    return ask


def test_bash_completes_commands_options_shipped_grids_and_files(completed):
    assert completed("signsym", "sw") == {"sweep"}
    assert {"--storage", "--set"} <= completed("signsym", "plan", "--s")
    assert completed("signsym", "sweep", "paper") == {"paper", "paper-blackbox", "paper-hashing"}
    assert completed("signsym", "plan", "mi") == {"mine.yaml"}
    assert completed("signsym", "status", "r") == {"runs"}
    assert completed("signsym", "export", "runs", "--what", "cu") == {"curves"}
    assert completed("signsym", "no") == {"note"}
    assert completed("signsym", "note", "r") == {"runs"}
    assert completed("signsym", "sweep", "nothing-of-this-name") == set()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh")
def test_zsh_accepts_its_script(tmp_path):
    path = tmp_path / "_signsym"
    path.write_text(completion("zsh"))
    script = f"autoload -U compinit && compinit -D && source {path} && whence -w _shtab_signsym _signsym_grids"
    done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["_shtab_signsym:", "function", "_signsym_grids:", "function"], done.stderr
