"""What every test has: an environment and threads of its own; and what tests of sweeps ask for.

The process that hands out tests reads this file too and runs none: what takes long to import is imported in fixtures.
"""

from __future__ import annotations

import gc
import os
import signal

import pytest
from places import bucket as bucket
from places import uri as uri
from sweeps import TINY, finish, here, start

#: Fixtures that start a browser, a server or a program: every test that has one is slow.
STARTING = {"chromium", "bucket", "run"}

#: The files that take longest, in the order in which they are begun: before everything else. Those that wait for Rays
#: and clusters have between them those that compute, so that few Rays start at once and no core is idle.
LONGEST = ("test_sweep.py", "test_two_nodes.py", "test_slurm.py", "test_foolbox.py", "test_defects.py", "test_ssh.py")
LONGEST += ("test_storage_damage.py", "test_attacks.py", "test_scheduling.py", "test_audit.py", "test_docs.py")
LONGEST += ("test_audit_command.py", "test_machine.py", "test_static.py", "test_extensions.py", "test_browser.py")
LONGEST += ("test_commits.py", "test_slurm_script.py", "test_package.py")


# Until all tests are collected nothing is garbage, and to look through it again and again takes seconds.
gc.disable()


def pytest_collection_finish():
    # What was imported and collected stays to the end: it need not be looked through whenever a test leaves garbage.
    gc.freeze()
    gc.enable()


def pytest_configure(config):
    """Under nohup and in the background of a script these signals are ignored, by what tests start as well; a handler
    ignores them here alone, since no program inherits it.
    """
    if not config.getoption("numprocesses", None):  # this process runs tests
        from hypothesis import HealthCheck, settings

        # An example takes long where the machine is busy, or where it is the first to import a library.
        settings.register_profile(
            "unhurried", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        )
        settings.load_profile("unhurried")
        config.addinivalue_line("filterwarnings", "error::signsym_core.evaluation.attack.WeakAttackWarning")
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)


def pytest_collection_modifyitems(items):
    """Mark what `make test-fast` leaves out, beside the modules that say so: clusters, and what a fixture starts.

    What takes long comes first, so that no process is left with it alone at the end.
    """
    for item in items:
        if "cluster" in item.path.parts or STARTING & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: (_place(item.path.name), item.get_closest_marker("slow") is None))


def _place(file):
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_the_disk():
    """What tests write need not outlive a stop of the machine; to wait for the disk takes longer than many of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def _own_environment():
    """What a test puts into the environment, as a trial in this process does, is gone after it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session", autouse=True)
def _no_seeds_for_devices_that_are_not_there():
    """For a GPU that may start later, torch keeps each seed with the stack that gave it: a millisecond and more."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        for device in (torch.cuda, torch.xpu, torch.mtia):
            if not device.is_available():
                patch.setattr(device, "manual_seed_all", lambda seed: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Numbers that do not depend on the machine's cores, and no fight between processes for them: in the fixtures of a
    module too, which come before those of its tests.
    """
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread_again(_one_thread):
    """A job that runs in this process, with the threads that it asks for, leaves them as it found them."""
    import torch

    yield
    torch.set_num_threads(1)


@pytest.fixture
def planned_here(monkeypatch):
    """A sweep's plan is made in this process."""
    from orchestrator.engine import sweep

    monkeypatch.setattr(sweep, "apart", here)


@pytest.fixture
def undrawn(monkeypatch):
    """A report's figures are not drawn for a paper, four files each, where nothing looks at them."""
    monkeypatch.setattr("orchestrator.reports.page_files.save", lambda drawing, stem, search: [])


@pytest.fixture
def tiny(tmp_path):
    """The path of the tiny grid."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture
def run():
    """Run `python words...` to its end: (exit status, output)."""
    return lambda *words, **options: finish(start(*words, **options))
