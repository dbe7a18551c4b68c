"""What a Ray of this machine's own needs before it starts, made where it can be and named where it cannot.

Ray starts some ten processes and tells of what keeps one of them from starting in its own logs, if at all.
"""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.engine import watch

#: Bytes of a unix socket's path at most, and of what Ray and this module add to the folder's: a session's name and a
#: socket's. macOS allows 103.
SOCKET, ADDED = 103, len("/ss-12345678/r/session_2026-11-26_16-24-13_123456_1234567/sockets/plasma_store")
#: Bytes that Ray's logs and its object store need, the bytes of the store, and open files of one process.
ROOM, OBJECTS, FILES = 300 * 2**20, 200 * 2**20, 1024
#: Where temporary files may lie: what the user says, then what machines have.
PLACES = ("/tmp", "/var/tmp", "/dev/shm")


class MachineError(ValueError):
    """Something that keeps a Ray from starting on this machine, with what to do about it."""


class Quarters:
    """A folder that only this user can enter, with the environment and options of the Ray that is started in it.

    A program beside this one ends that Ray's processes and removes the folder when this process ends, however it does.
    """

    def __init__(self) -> None:
        check_files()
        self.folder = Path(tempfile.mkdtemp(prefix="ss-", dir=short_place(os.environ)))
        self.mark = uuid.uuid4().hex
        words = [sys.executable, "-I", watch.__file__, self.mark, str(self.folder)]
        # In a session of its own: a terminal's Ctrl-C, and a signal to the driver's group, are not meant for it.
        self.watcher = subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)
        # Ray opens its folder to everybody; the one around it stays closed.
        self.options: dict[str, Any] = {"_temp_dir": str(self.folder / "r"), "object_store_memory": OBJECTS}
        if _free("/dev/shm") < OBJECTS + 2**20:
            self.options["_plasma_directory"] = str(self.folder)

    @contextlib.contextmanager
    def environment(self) -> Iterator[None]:
        """The environment in which Ray's processes start, which all of them keep; this process's is as before after it.

        Raises MachineError where no token can be kept.
        """
        changed = {watch.VARIABLE: self.mark, "PYTHONUTF8": "1"} | token(self.folder, os.environ)
        proxied = any(name.lower() in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy") for name in os.environ)
        for name in ("no_proxy", "NO_PROXY") if proxied else ():
            # What Ray's processes say to each other must not leave the machine.
            changed[name] = ",".join(filter(None, [os.environ.get(name, ""), "127.0.0.1,localhost"]))
        before = {name: os.environ.get(name) for name in changed}
        os.environ.update(changed)
        try:
            yield
        finally:
            for name, value in before.items():
                if name == "RAY_AUTH_TOKEN_PATH":
                    # This process talks to that Ray as well.
                    continue
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def leave(self) -> None:
        """End what is left of that Ray and remove the folder."""
        assert self.watcher.stdin is not None
        self.watcher.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.watcher.wait(watch.LONGEST + 5)
        if os.environ.get("RAY_AUTH_TOKEN_PATH") == str(self.folder / "token"):
            del os.environ["RAY_AUTH_TOKEN_PATH"]


def short_place(environment: Mapping[str, str]) -> str:
    """A folder for Ray's files: writable, with room, and short enough for the paths of its sockets.

    RAY_TMPDIR and TMPDIR come first. Raises MachineError that says what is wrong with each.
    """
    said = [environment[name] for name in ("RAY_TMPDIR", "TMPDIR") if environment.get(name)]
    wrong = {}
    for place in dict.fromkeys([*said, *PLACES]):
        if not os.path.isdir(place) or not os.access(place, os.W_OK | os.X_OK):
            wrong[place] = "not writable" if os.path.isdir(place) else "not there"
        elif len(os.fsencode(place)) + ADDED > SOCKET:
            wrong[place] = f"a longer path than the {SOCKET - ADDED} bytes that Ray's sockets leave"
        elif _free(place) < ROOM:
            wrong[place] = f"less than {ROOM >> 20} MB free"
        else:
            return place
    reasons = "; ".join(f"{place}: {reason}" for place, reason in wrong.items())
    raise MachineError(
        f"Ray finds no folder for its sockets and logs ({reasons}). Free some space there, or name a short folder of "
        f"this machine's own by RAY_TMPDIR"
    )


def check_files() -> None:
    """Raise this process's limit of open files as far as it may. Raises MachineError where that is too low for Ray."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < FILES:
        raise MachineError(
            f"a process may have {most} files open here, and Ray needs {FILES}: raise the limit (ulimit -Hn, or the "
            f"container's nofile) and run the same command again"
        )


def token(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """See that Ray's token exists and is the user's alone: in ~/.ray/auth_token, or else in `folder`.

    Returns the variables that Ray finds it by. What the user has set is left as it is.
    """
    if environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH"):
        return {}
    try:
        path = Path.home() / ".ray" / "auth_token"
        if path.exists():
            close_token()
            path.read_text()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_token(path)
        return {}
    except (OSError, RuntimeError):
        # No home, or one that cannot be written, as in containers that run under a foreign number.
        path = folder / "token"
        if not path.exists():
            _write_token(path)
        return {"RAY_AUTH_TOKEN_PATH": str(path)}


def close_token() -> None:
    """Keep the token that Ray has written, which it leaves open to all users, from everybody but its owner."""
    with contextlib.suppress(OSError, RuntimeError):
        path = Path.home() / ".ray" / "auth_token"
        if path.stat().st_uid == os.getuid() and path.stat().st_mode & 0o077:
            path.chmod(0o600)


def _write_token(path: Path) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))


def _free(place: str) -> int:
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return 0
