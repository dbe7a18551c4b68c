"""The GPUs of this machine for a local sweep: their memory, and CUDA's Multi-Process Service (MPS).

Without MPS the kernels of different processes take turns on a GPU: on an H100 six trainings of ResNet-18 at 64 px
together made 19,800 images a second, one alone 21,500. With it they made 45,400.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from orchestrator.engine.environment import variables

#: Set to "off" where MPS must not be used.
SWITCH = "SIGNSYM_MPS"
PROGRAM, FOLDERS = "nvidia-cuda-mps-control", ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")
#: Seconds that a program of the driver may take, and that the last workers have for their end.
PATIENCE, LAST = 20.0, 5

#: Makes a context on the first GPU: whether the service serves this machine, as in many containers it does not.
_PROBE = """
import ctypes
cuda, device, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_void_p()
assert cuda.cuInit(0) == 0
assert cuda.cuDeviceGet(ctypes.byref(device), 0) == 0
assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
"""


def memory() -> int | None:
    """Bytes of the smallest GPU of this machine; None where its driver does not say."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
        return min(int(line) for line in output.split()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


@contextlib.contextmanager
def shared(folder: Path) -> Iterator[bool]:
    """A context whose processes use MPS: True where it could be had, with its files in `folder`.

    A service that the user has started is used as it is.
    """
    if os.environ.get(SWITCH) == "off" or shutil.which(PROGRAM) is None:
        yield False
        return
    if FOLDERS[0] in os.environ:
        yield True
        return
    places = _places(folder)
    for place in places.values():
        os.mkdir(place, 0o700)
    works = _started(places)
    with variables(places if works else {}):
        yield works


def _places(folder: Path) -> dict[str, str]:
    return {name: str(folder / name.split("_")[2].lower()) for name in FOLDERS}


def _started(places: dict[str, str]) -> bool:
    # The service sees all GPUs: it numbers those that its variable names anew, while Ray gives workers the old numbers.
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"} | places
    if _succeeds([PROGRAM, "-d"], environment) and _succeeds([sys.executable, "-c", _PROBE], environment):
        return True
    _quit(environment)
    return False


def _succeeds(command: list[str], environment: dict[str, str]) -> bool:
    nowhere = subprocess.DEVNULL
    try:
        # No pipes: the service would keep them open.
        subprocess.run(
            command, env=environment, timeout=PATIENCE, check=True, stdin=nowhere, stdout=nowhere, stderr=nowhere
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def end(folder: Path) -> None:
    """End the service with files in `folder`, where one was started."""
    places = _places(folder)
    if os.path.isdir(places[FOLDERS[0]]) and shutil.which(PROGRAM):
        _quit(dict(os.environ) | places)


def _quit(environment: dict[str, str]) -> None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        words = f"quit -t {LAST}\n".encode()
        subprocess.run([PROGRAM], env=environment, input=words, capture_output=True, timeout=PATIENCE, check=False)
