"""Where a store is: a local folder, a bucket, or any other place that pyarrow or fsspec opens by a URI."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from orchestrator.store.uri import UriError, check

#: A URI with one slash, which would be the name of a folder.
_SLIP = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


class StoreError(OSError):
    """A store that cannot be read or written."""


class Place:
    """The place of a URI, or of a local path. Raises StoreError where it cannot be opened, or holds a secret."""

    def __init__(self, uri: str) -> None:
        #: The local folder; None for a store that is not local.
        self.folder: Path | None = None
        if "://" not in uri:
            if _SLIP.match(uri):
                raise StoreError(
                    f"storage {uri!r}: expected SCHEME://PLACE, such as s3://bucket/path; "
                    f"a folder of that name is ./{uri}"
                )
            self.folder = _no_file(Path(uri).expanduser().resolve())
            self.uri, self.root = str(self.folder), str(self.folder)
            self.fs: fs.FileSystem = fs.LocalFileSystem()
            return
        self.uri = uri
        try:
            check(uri)
        except UriError as error:
            raise StoreError(str(error)) from None
        self.fs, self.root = _opened(uri)
        if not self.root:
            raise StoreError(f"storage {uri!r}: expected a place after ://, such as s3://bucket/path")
        if isinstance(self.fs, fs.LocalFileSystem):
            self.folder = _no_file(Path(self.root))
        #: Whether the place is an object store, which shows an object only when it is complete.
        self.puts = isinstance(self.fs, (fs.S3FileSystem, fs.GcsFileSystem)) or "Azure" in type(self.fs).__name__

    @property
    def word(self) -> str:
        """The URI as one word of a command line."""
        return shlex.quote(self.uri)


def _no_file(folder: Path) -> Path:
    if folder.is_file():
        raise StoreError(f"storage '{folder}': expected a folder, got a file")
    return folder


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
