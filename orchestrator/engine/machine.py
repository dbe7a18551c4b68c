"""What a local Ray needs of this machine: created before it starts, or refused with the reason.

Ray starts some ten processes and reports why one of them did not start in its logs only, if at all.
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
from orchestrator.engine.environment import variables

#: Bytes of a unix socket's path at most, and of what Ray and this module add to the folder's: a session's name and a
#: socket's. macOS allows 103.
SOCKET, ADDED = 103, len("/ss-12345678/r/session_2026-11-26_16-24-13_123456_1234567/sockets/plasma_store")
#: Bytes that Ray's logs and its object store need, the bytes of the store, and open files of one process.
ROOM, OBJECTS, FILES = 300 * 2**20, 200 * 2**20, 1024
#: Folders for temporary files, after those that the user names by RAY_TMPDIR and TMPDIR.
FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


#: How long Ray's node waits for its agents, two Python programs, before it ends itself.
PATIENCE = {"RAY_agent_register_timeout_ms": "600000"}


class MachineError(ValueError):
    """A condition of this machine that keeps Ray from starting, with its remedy."""


class RayFolder:
    """A folder that only this user can enter, with the environment and options of the Ray that is started in it.

    A separate program (`watch`) ends that Ray's processes and removes the folder however this process ends.
    """

    def __init__(self) -> None:
        check_files()
        self.folder = Path(tempfile.mkdtemp(prefix="ss-", dir=short_folder(os.environ)))
        self.mark = uuid.uuid4().hex
        arguments = [sys.executable, "-I", watch.__file__, self.mark, str(self.folder)]
        # A new session: a terminal's Ctrl-C, or a signal to the driver's process group, must not end the watcher.
        self.watcher = subprocess.Popen(arguments, stdin=subprocess.PIPE, start_new_session=True)
        # Ray makes its folder readable for everybody; the folder around it stays private.
        self.options: dict[str, Any] = {"_temp_dir": str(self.folder / "r"), "object_store_memory": OBJECTS}
        if _free("/dev/shm") < OBJECTS + 2**20:
            self.options["_plasma_directory"] = str(self.folder)

    @contextlib.contextmanager
    def environment(self) -> Iterator[None]:
        """A context with the environment variables that Ray's processes inherit; this process's are restored after it.

        Raises MachineError where no token can be written.
        """
        # This process needs the token as well, also afterwards.
        os.environ.update(token(self.folder, os.environ))
        changed = {watch.VARIABLE: self.mark, "PYTHONUTF8": "1"} | PATIENCE
        proxied = any(name.lower() in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy") for name in os.environ)
        for name in ("no_proxy", "NO_PROXY") if proxied else ():
            # Messages between Ray's processes must not leave the machine.
            changed[name] = ",".join(filter(None, [os.environ.get(name, ""), "127.0.0.1,localhost"]))
        with variables(changed):
            yield

    def leave(self) -> None:
        """End the remaining processes of that Ray and remove the folder."""
        assert self.watcher.stdin is not None
        self.watcher.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.watcher.wait(watch.LONGEST + 5)
        if os.environ.get("RAY_AUTH_TOKEN_PATH") == str(self.folder / "token"):
            del os.environ["RAY_AUTH_TOKEN_PATH"]


def short_folder(environment: Mapping[str, str]) -> str:
    """A folder for Ray's files: writable, with room, and short enough for the paths of its sockets.

    RAY_TMPDIR and TMPDIR come first. Raises MachineError with the reason for each folder that does not fit.
    """
    named = [environment[name] for name in ("RAY_TMPDIR", "TMPDIR") if environment.get(name)]
    reasons = {}
    for folder in dict.fromkeys([*named, *FOLDERS]):
        if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
            reasons[folder] = "not writable" if os.path.isdir(folder) else "missing"
        elif len(os.fsencode(folder)) + ADDED > SOCKET:
            reasons[folder] = f"a longer path than the {SOCKET - ADDED} bytes that Ray's sockets leave"
        elif _free(folder) < ROOM:
            reasons[folder] = f"less than {ROOM >> 20} MB free"
        else:
            return folder
    message = "; ".join(f"{folder}: {reason}" for folder, reason in reasons.items())
    raise MachineError(
        f"Ray finds no folder for its sockets and logs ({message}). Free some space there, or name a short folder of "
        f"this machine by RAY_TMPDIR"
    )


def check_files() -> None:
    """Raise this process's limit of open files as far as allowed. Raises MachineError where Ray needs more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    if limit < FILES:
        raise MachineError(
            f"a process may have {limit} files open here, and Ray needs {FILES}: raise the limit (ulimit -Hn, or the "
            f"container's nofile) and run the same command again"
        )


def token(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Create Ray's token if there is none, readable for the user only: ~/.ray/auth_token, or else a file in `folder`.

    Returns the environment variables that name it to Ray. A token that the user has set is kept.
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
        # No home, or one that is not writable, as in containers that run under an unknown user id.
        path = folder / "token"
        if not path.exists():
            _write_token(path)
        return {"RAY_AUTH_TOKEN_PATH": str(path)}


def close_token() -> None:
    """Make the token file private to its owner: Ray writes it readable for all users."""
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
