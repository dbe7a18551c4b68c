"""The files of a store, each written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from orchestrator.store.entries import FolderEntry, local_entries
from orchestrator.store.place import Place
from orchestrator.store.place import StoreError as StoreError
from orchestrator.store.reasons import FOLDER, printable, reason_of_mode
from signsym_core import seal

#: What happened to a store that was there.
GONE = "it was moved, removed or unmounted since; put it back, or name its new place by --storage"
#: The remedy for an error of the operating system, by its number.
_ADVICE = {
    errno.ENOSPC: "free some space, or choose another --storage",
    errno.EDQUOT: "free some space, or choose another --storage",
    errno.EROFS: "make it writable, or choose another --storage",
    errno.EACCES: "get the permission to write there, or choose another --storage",
    errno.EPERM: "get the permission to write there, or choose another --storage",
    errno.ENOTDIR: "choose another --storage: a folder, not a file",
}


class Files(Place):
    """The files below a folder or a bucket's prefix. A file is written completely or not at all."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        #: Entries that could not be used, by their path below the store, with the reason.
        self.skipped: dict[str, str] = {}
        #: Files without a digest that were read: those of versions before digests.
        self.unsealed: set[str] = set()
        #: Whether a local store's folder has been there. It is made once: one that is moved away is not made again.
        self._existed = self.folder is not None and self.folder.is_dir()

    def read(self, path: str) -> bytes:
        """The bytes at `path`. Raises FileNotFoundError where there is no entry, OSError for an entry that is no file.

        A local file is not memory-mapped: truncated in use, it would kill the process. Pipes and devices are never
        opened.
        """
        if self.folder is None:
            with self._reached(), self.fs.open_input_stream(f"{self.root}/{path}") as stream:
                data: bytes = stream.read()
                return data
        place = os.fsencode(f"{self.root}/{path}")
        if reason := reason_of_mode(os.stat(place).st_mode):
            raise OSError(reason)
        with io.FileIO(os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)) as file:
            return file.readall()

    def read_sealed(self, path: str) -> bytes:
        """The bytes of a sealed file. Raises DamagedError where they do not have its digest."""
        data = self.read(path)
        if not seal.check(data):
            self.unsealed.add(path)
        return data

    def exists(self, paths: Sequence[str]) -> set[str]:
        """The paths among `paths` at which there is a file."""
        if self.folder is not None:
            return {path for path in paths if (self.folder / path).is_file()}
        with self._reached():
            infos = self.fs.get_file_info([f"{self.root}/{path}" for path in paths])
        return {path for path, info in zip(paths, infos, strict=True) if info.type == fs.FileType.File}

    def entries(self, folder: str, deep: bool = False) -> list[FolderEntry]:
        """The entries of a folder, sorted by name; none where there is no such folder. With `deep` also those of its
        folders, as FOLDER/NAME.

        A local folder that cannot be read is one entry with an empty name.
        """
        if self.folder is not None:
            return sorted(local_entries(self.folder / folder, deep), key=lambda entry: entry.name)
        selector = fs.FileSelector(f"{self.root}/{folder}".rstrip("/"), allow_not_found=True, recursive=deep)
        above = selector.base_dir.strip("/").count("/") + 1
        entries = []
        with self._reached():
            infos = self.fs.get_file_info(selector)
        for info in infos:
            name = "/".join(info.path.strip("/").split("/")[above:])
            reason = "" if info.type == fs.FileType.File else FOLDER
            entries.append(FolderEntry(name, reason, (info.mtime_ns or 0) / 1e9, info.size or 0))
        return sorted(entries, key=lambda entry: entry.name)

    def listing(self, folder: str, suffix: str) -> tuple[dict[str, int], dict[str, str]]:
        """The bytes of a folder's files that end with `suffix`, by their sorted names; and all other entries, by their
        path below the store, with the reason why they are not among them. Temporary files are in neither.
        """
        sizes, strangers = {}, {}
        for entry in self.entries(folder):
            if entry.name.startswith("."):
                continue
            reason = entry.reason or ("" if entry.name.endswith(suffix) else f"its name does not end with {suffix}")
            if not entry.name.isprintable():
                reason = "its name cannot be printed"
            if reason:
                strangers[printable(f"{folder}/{entry.name}")] = reason
            else:
                sizes[entry.name] = entry.size
        return sizes, strangers

    def names(self, folder: str, suffix: str) -> list[str]:
        """The sorted names of a folder's files that end with `suffix`, without temporary ones."""
        return list(self.listing(folder, suffix)[0])

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """A context in which an error of Arrow's, such as of credentials that are missing, is the store's."""
        try:
            yield
        except pa.ArrowException as error:
            reason = " ".join(str(error).split())
            raise StoreError(
                f"storage {self.uri} cannot be read: {reason}; check its name, the network, and the credentials that "
                f"its provider's tools read from the environment"
            ) from error

    def remove(self, path: str) -> None:
        """Remove the file at `path`, if there is one."""
        if self.folder is not None:
            (self.folder / path).unlink(missing_ok=True)
        elif self.fs.get_file_info(f"{self.root}/{path}").type != fs.FileType.NotFound:
            self.fs.delete_file(f"{self.root}/{path}")

    def write(self, path: str, data: bytes | bytearray | memoryview) -> None:
        """Write `data` to `path`, completely or not at all, also when the machine stops in the middle."""
        try:
            if self.folder is not None:
                if self._existed and not self.folder.is_dir():
                    raise FileNotFoundError(errno.ENOENT, GONE)
                write_file(self.folder / path, data)
                self._existed = True
            elif self.puts:
                self._put(path, data)
            else:
                self._move_into_place(path, data)
        except (OSError, pa.ArrowException) as error:
            number = getattr(error, "errno", None)
            advice = _ADVICE.get(number) if isinstance(number, int) else None
            words = f"{path} cannot be written to the store {self.uri}: {error}"
            raise StoreError(f"{words}; {advice}" if advice else words) from error

    def _put(self, path: str, data: bytes | bytearray | memoryview) -> None:
        with self.fs.open_output_stream(f"{self.root}/{path}") as stream:
            stream.write(data)

    def _move_into_place(self, path: str, data: bytes | bytearray | memoryview) -> None:
        folder, _, name = path.rpartition("/")
        temporary = f"{folder}/.{name}.{uuid.uuid4().hex}.tmp"
        self.fs.create_dir(f"{self.root}/{folder}", recursive=True)
        try:
            self._put(temporary, data)
            self.fs.move(f"{self.root}/{temporary}", f"{self.root}/{path}")
        except BaseException:
            with contextlib.suppress(OSError, pa.ArrowException):
                self.fs.delete_file(f"{self.root}/{temporary}")
            raise


def write_file(target: Path, data: bytes | bytearray | memoryview) -> None:
    """Write a local file whole or not at all, also when the machine stops in the middle; makes the folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
