"""Where a store lies: a local folder, a bucket, or anything else that pyarrow or fsspec can open by a URI."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from orchestrator.store.uri import UriError, check

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
class Entry:
    """What stands in a folder under a name."""

    name: str
    #: Why it is no file that can be read; "" for a file. A folder is one.
    reason: str
    #: When it was last written to, in seconds since 1970; 0 where that is not known.
    modified: float = 0.0


#: The reason of an entry that is a folder.
FOLDER = "it is a folder, not a file"
_KINDS = {
    stat.S_IFDIR: FOLDER,
    stat.S_IFIFO: "it is a pipe (FIFO), not a file",
    stat.S_IFSOCK: "it is a socket, not a file",
    stat.S_IFCHR: "it is a device, not a file",
    stat.S_IFBLK: "it is a device, not a file",
}


class Files:
    """Files below one place. A file that is written appears whole or not at all."""

    def __init__(self, uri: str) -> None:
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
        if reason := _reason(os.stat(place).st_mode):
            raise OSError(reason)
        with open(os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            return file.read()

    def entries(self, folder: str, deep: bool = False) -> list[Entry]:
        """What stands in a folder, by name; nothing where there is no such folder. `deep`: in its folders as well, as
        FOLDER/NAME.

        A local folder that cannot be read is an entry of its own, whose name is empty.
        """
        if self.folder is not None:
            return sorted(_entries(self.folder / folder, deep), key=lambda entry: entry.name)
        selector = fs.FileSelector(f"{self.root}/{folder}".rstrip("/"), allow_not_found=True, recursive=deep)
        above = selector.base_dir.strip("/").count("/") + 1
        found = []
        for info in self.fs.get_file_info(selector):
            name = "/".join(info.path.strip("/").split("/")[above:])
            reason = "" if info.type == fs.FileType.File else FOLDER
            found.append(Entry(name, reason, (info.mtime_ns or 0) / 1e9))
        return sorted(found, key=lambda entry: entry.name)

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


def _reason(mode: int) -> str:
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "it is no file")


def _entries(folder: Path, deep: bool, prefix: str = "") -> Iterator[Entry]:
    try:
        scan = os.scandir(folder)
    except FileNotFoundError:
        return
    except (PermissionError, NotADirectoryError) as error:
        yield Entry(prefix, error.strerror or str(error))
        return
    with scan:
        for entry in scan:
            name = prefix + entry.name
            try:
                status = entry.stat()
            except FileNotFoundError:
                # Removed between the listing and this; a link that leads nowhere stays.
                if entry.is_symlink():
                    yield Entry(name, "it is a link that leads nowhere")
            except OSError as error:
                yield Entry(name, error.strerror or str(error))
            else:
                yield Entry(name, _reason(status.st_mode), status.st_mtime)
                if deep and stat.S_ISDIR(status.st_mode):
                    yield from _entries(Path(entry.path), False, f"{name}/")


def _opened(uri: str) -> tuple[fs.FileSystem, str]:
    try:
        found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(uri)
        return found
    except (pa.ArrowInvalid, OSError) as error:
        if "Unrecognized filesystem type" not in str(error):
            raise StoreError(f"storage {uri!r} cannot be opened: {error}") from error
    import fsspec

    try:
        opened, root = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError, OSError) as error:
        raise StoreError(
            f"storage {uri!r} cannot be opened: {error}. A storage is a folder, s3://bucket/path, gs://bucket/path, or "
            f"another URI that pyarrow or fsspec knows"
        ) from error
    return fs.PyFileSystem(fs.FSSpecHandler(opened)), root.rstrip("/")
