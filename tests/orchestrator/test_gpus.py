"""The Multi-Process Service of CUDA, by programs in place of NVIDIA's."""

from __future__ import annotations

import os

import pytest

from orchestrator.engine import gpus
from orchestrator.engine.causes import cause_of

CONTROL = """#!/bin/sh
echo "$@ $(test -z "$1" && cat) [$CUDA_MPS_PIPE_DIRECTORY] [$CUDA_VISIBLE_DEVICES]" >> {log}
exit {status}
"""


@pytest.fixture
def control(tmp_path, monkeypatch):
    """A control program whose calls are lines of a file; returns that file and a function that sets its exit status."""
    programs, log = tmp_path / "programs", tmp_path / "calls"
    programs.mkdir()

    def write(status):
        program = programs / gpus.PROGRAM
        program.write_text(CONTROL.format(log=log, status=status))
        program.chmod(0o755)

    write(0)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for name in (*gpus.FOLDERS, gpus.SWITCH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setattr(gpus, "_PROBE", "import os; assert os.environ['CUDA_MPS_PIPE_DIRECTORY']")
    return log, write


def test_workers_inherit_the_service_and_it_ends_with_the_sweep(control, tmp_path):
    log, _ = control
    with gpus.shared(tmp_path) as works:
        assert works
        assert os.environ[gpus.FOLDERS[0]] == str(tmp_path / "pipe")
        assert (tmp_path / "pipe").stat().st_mode & 0o777 == 0o700
    assert not set(gpus.FOLDERS) & set(os.environ)
    gpus.end(tmp_path)
    # It sees every GPU, whatever this process may see.
    assert log.read_text().splitlines() == [f"-d  [{tmp_path}/pipe] []", f" quit -t 5 [{tmp_path}/pipe] [2,3]"]


@pytest.mark.parametrize("failing", ["start", "probe"])
def test_where_it_does_not_serve_nobody_uses_it(control, tmp_path, monkeypatch, failing):
    log, write = control
    if failing == "start":
        write(1)
    else:
        monkeypatch.setattr(gpus, "_PROBE", "raise SystemExit(1)")
    with gpus.shared(tmp_path) as works:
        assert not works
        assert not set(gpus.FOLDERS) & set(os.environ)
    assert log.read_text().splitlines()[-1].startswith(" quit")


def test_a_service_of_the_user_is_used_and_one_can_be_refused(control, tmp_path, monkeypatch):
    log, _ = control
    monkeypatch.setenv(gpus.FOLDERS[0], "/theirs")
    with gpus.shared(tmp_path) as works:
        assert works
        assert os.environ[gpus.FOLDERS[0]] == "/theirs"
    monkeypatch.setenv(gpus.SWITCH, "off")
    with gpus.shared(tmp_path) as works:
        assert not works
    gpus.end(tmp_path)
    assert not log.exists()


def test_without_the_program_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with gpus.shared(tmp_path) as works:
        assert not works
    assert gpus.memory() is None
    assert not list(tmp_path.iterdir())


def test_the_memory_is_that_of_the_smallest_gpu(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '81559\\n40960\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpus.memory() == 40960 * 2**20
    program.write_text("#!/bin/sh\necho 'No devices were found'\n")
    assert gpus.memory() is None


def test_an_error_of_the_service_is_no_error_of_the_job():
    lost = "CUDA error: MPS client failed to connect to the MPS control daemon or the MPS server"
    assert cause_of(RuntimeError(lost)) == "death"
    assert cause_of(RuntimeError("CUDA error: an illegal memory access was encountered")) == "error"
