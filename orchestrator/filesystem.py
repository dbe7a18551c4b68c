"""Where a store lies: a local folder, a bucket, or anything else that pyarrow or fsspec can open by a URI."""

from __future__ import annotations

import contextlib
import errno
import os
import urllib.parse
import uuid
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

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
        _refuse_credentials(uri)
        self.fs, self.root = _opened(uri)
        if isinstance(self.fs, fs.LocalFileSystem):
            self.folder = Path(self.root)
        #: An object store shows an object when all of it has arrived.
        self.puts = isinstance(self.fs, (fs.S3FileSystem, fs.GcsFileSystem)) or "Azure" in type(self.fs).__name__

    def write(self, path: str, data: bytes | memoryview) -> None:
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

    def _put(self, path: str, data: bytes | memoryview) -> None:
        with self.fs.open_output_stream(f"{self.root}/{path}") as stream:
            stream.write(data)

    def _move_into_place(self, path: str, data: bytes | memoryview) -> None:
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


def _replace(target: Path, data: bytes | memoryview) -> None:
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


def _refuse_credentials(uri: str) -> None:
    """A URI is written into logs, records and tables, so it must not hold a secret."""
    parts = urllib.parse.urlsplit(uri)
    words = ("key", "secret", "token", "password", "credential")
    asked = [name for name, _ in urllib.parse.parse_qsl(parts.query) if any(word in name.lower() for word in words)]
    if "@" in parts.netloc or asked:
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise StoreError(
            f"storage {shown} was given with credentials in its URI, which would be written down. Give them by the "
            f"environment instead, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or by the machine's role"
        )
