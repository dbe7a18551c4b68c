"""Where a store lies: a local folder, a bucket, or anything else that pyarrow or fsspec can open by a URI."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import stat
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from orchestrator.store.reasons import FOLDER, printable, reason_of_mode
from orchestrator.store.uri import UriError, check
from signsym_core import seal

#: What to do about an error of the machine, by its number.
_ADVICE = {
    errno.ENOSPC: "free some space, or choose another --storage",
    errno.EDQUOT: "free some space, or choose another --storage",
    errno.EROFS: "make it writable, or choose another --storage",
    errno.EACCES: "get the permission to write there, or choose another --storage",
    errno.EPERM: "get the permission to write there, or choose another --storage",
    errno.ENOTDIR: "choose another --storage: a folder, not a file",
}


class StoreError(OSError):
    """A store that cannot be read or written."""


@dataclasses.dataclass(frozen=True)
class FolderEntry:
    """What stands in a folder under a name."""

    name: str
    #: Why it is no file that can be read; "" for a file. A folder is one.
    reason: str
    #: When it was last written to, in seconds since 1970; 0 where that is not known.
    modified: float = 0.0
    #: Bytes; 0 for what is no file.
    size: int = 0


class Files:
    """Files below one place. A file that is written appears whole or not at all."""

    def __init__(self, uri: str) -> None:
        #: What was met and could not be used, by its place below the store, with the reason.
        self.skipped: dict[str, str] = {}
        #: Files that were read and carry no digest: those of versions before there were any.
        self.unsealed: set[str] = set()
        #: The local folder; None elsewhere.
        self.folder: Path | None = None
        if "://" not in uri:
            self.folder = Path(uri).expanduser().resolve()
            self.uri, self.root = str(self.folder), str(self.folder)
            self.fs: fs.FileSystem = fs.LocalFileSystem()
            return
        self.uri = uri
        try:
            check(uri)
        except UriError as error:
            raise StoreError(str(error)) from None
        self.fs, self.root = _opened(uri)
        if isinstance(self.fs, fs.LocalFileSystem):
            self.folder = Path(self.root)
        #: An object store shows an object when all of it has arrived.
        self.puts = isinstance(self.fs, (fs.S3FileSystem, fs.GcsFileSystem)) or "Azure" in type(self.fs).__name__

    def read(self, path: str) -> bytes:
        """The bytes at `path`; FileNotFoundError where there is nothing, OSError for what is no file.

        A local file is not mapped: truncated in use, it would kill the process. A pipe or a device is never opened.
        """
        if self.folder is None:
            with self.fs.open_input_stream(f"{self.root}/{path}") as stream:
                data: bytes = stream.read()
                return data
        place = os.fsencode(self.folder / path)
        if reason := reason_of_mode(os.stat(place).st_mode):
            raise OSError(reason)
        with open(os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            return file.read()

    def read_sealed(self, path: str) -> bytes:
        """The bytes of a file at `path` that a number comes from. Raises DamagedError where its digest is another."""
        data = self.read(path)
        if not seal.check(data):
            self.unsealed.add(path)
        return data

    def exists(self, paths: Sequence[str]) -> set[str]:
        """Those of `paths` at which there is a file."""
        if self.folder is not None:
            return {path for path in paths if (self.folder / path).is_file()}
        infos = self.fs.get_file_info([f"{self.root}/{path}" for path in paths])
        return {path for path, info in zip(paths, infos, strict=True) if info.type == fs.FileType.File}

    def entries(self, folder: str, deep: bool = False) -> list[FolderEntry]:
        """What stands in a folder, by name; nothing where there is no such folder. `deep`: in its folders as well, as
        FOLDER/NAME.

        A local folder that cannot be read is an entry of its own, whose name is empty.
        """
        if self.folder is not None:
            return sorted(_entries(self.folder / folder, deep), key=lambda entry: entry.name)
        selector = fs.FileSelector(f"{self.root}/{folder}".rstrip("/"), allow_not_found=True, recursive=deep)
        above = selector.base_dir.strip("/").count("/") + 1
        entries = []
        for info in self.fs.get_file_info(selector):
            name = "/".join(info.path.strip("/").split("/")[above:])
            reason = "" if info.type == fs.FileType.File else FOLDER
            entries.append(FolderEntry(name, reason, (info.mtime_ns or 0) / 1e9, info.size or 0))
        return sorted(entries, key=lambda entry: entry.name)

    def listing(self, folder: str, suffix: str) -> tuple[list[str], dict[str, str]]:
        """The sorted names of one folder's files that end with `suffix`; and all else that is there, by its place
        below the store with the reason why it is none of them. Temporary files are neither.
        """
        names, strangers = [], {}
        for entry in self.entries(folder):
            if entry.name.startswith("."):
                continue
            reason = entry.reason or ("" if entry.name.endswith(suffix) else f"its name does not end with {suffix}")
            if not entry.name.isprintable():
                reason = "its name cannot be printed"
            if reason:
                strangers[printable(f"{folder}/{entry.name}")] = reason
            else:
                names.append(entry.name)
        return names, strangers

    def names(self, folder: str, suffix: str) -> list[str]:
        """The sorted names of one folder's files that end with `suffix`; temporary ones are not among them."""
        return self.listing(folder, suffix)[0]

    def remove(self, path: str) -> None:
        """Remove the file at `path`, if it is there."""
        if self.folder is not None:
            (self.folder / path).unlink(missing_ok=True)
        elif self.fs.get_file_info(f"{self.root}/{path}").type != fs.FileType.NotFound:
            self.fs.delete_file(f"{self.root}/{path}")

    def write(self, path: str, data: bytes | bytearray | memoryview) -> None:
        """Put `data` at `path`, whole or not at all, also when the machine stops in the middle."""
        try:
            if self.folder is not None:
                _replace(self.folder / path, data)
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


def _replace(target: Path, data: bytes | bytearray | memoryview) -> None:
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


def _entries(folder: Path, deep: bool, prefix: str = "") -> Iterator[FolderEntry]:
    try:
        scan = os.scandir(folder)
    except FileNotFoundError:
        return
    except (PermissionError, NotADirectoryError) as error:
        yield FolderEntry(prefix, error.strerror or str(error))
        return
    with scan:
        for entry in scan:
            name = prefix + entry.name
            try:
                status = entry.stat()
            except FileNotFoundError:
                # Removed between the listing and this; a link that leads nowhere stays.
                if entry.is_symlink():
                    yield FolderEntry(name, "it is a link that leads nowhere")
            except OSError as error:
                yield FolderEntry(name, error.strerror or str(error))
            else:
                yield FolderEntry(name, reason_of_mode(status.st_mode), status.st_mtime, status.st_size)
                if deep and stat.S_ISDIR(status.st_mode):
                    yield from _entries(Path(entry.path), False, f"{name}/")


def _opened(uri: str) -> tuple[fs.FileSystem, str]:
    try:
        opened: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(uri)
        return opened
    except (pa.ArrowInvalid, OSError) as error:
        if "Unrecognized filesystem type" not in str(error):
            raise StoreError(f"storage {uri!r} cannot be opened: {error}") from error
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError, OSError) as error:
        raise StoreError(
            f"storage {uri!r} cannot be opened: {error}. A storage is a folder, s3://bucket/path, gs://bucket/path, or "
            f"another URI that pyarrow or fsspec knows"
        ) from error
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), root.rstrip("/")
