"""The digest inside a file, by which damage is noticed whenever the file is read.

A sealed file contains the sha256 of its own bytes, computed with zeros in the digest's place. Any reader of its format
opens it: the seal is a text in a Parquet file's footer, in a safetensors file's header, in a JSON object. There is no
second file to lose or mix up, and a bucket needs one request.

One damaged bit never makes a sealed file look like one from before seals: KEY and MARK would both have to be missing.
"""

from __future__ import annotations

import hashlib

#: The key of the seal in a file's metadata, and the prefix of its text; 64 hexadecimal digits follow.
KEY, MARK = "signsym_seal", "signsym-sha256:"
#: The text in a file before it is sealed.
BLANK = MARK + "0" * 64
#: Bytes at a file's end and at its beginning that are searched for a seal: a Parquet footer, a safetensors header.
TAIL, HEAD = 1 << 16, 1 << 22


class DamagedError(ValueError):
    """A file that is not as it was written."""


def sealed(data: bytes | memoryview) -> bytearray:
    """A copy of `data`, which contains BLANK under KEY, with its digest in place of the zeros."""
    file = bytearray(data)
    start = _find(file, MARK.encode())
    assert start >= 0, "only a file that contains BLANK can be sealed"
    start += len(MARK)
    file[start : start + 64] = _digest(file, start).encode()
    return file


def check(data: bytes) -> bool:
    """Whether a file is sealed. Raises DamagedError for a sealed file whose bytes have changed."""
    start, key = _find(data, MARK.encode()), _find(data, KEY.encode())
    if start < 0 and key < 0:
        return False
    start += len(MARK)
    if start < len(MARK) or key < 0 or data[start : start + 64] != _digest(data, start).encode():
        raise DamagedError("damaged: its bytes are not those that were written (sha256)")
    return True


def _find(data: bytes | bytearray, text: bytes) -> int:
    place = data.rfind(text, max(0, len(data) - TAIL))
    return place if place >= 0 else data.find(text, 0, HEAD)


def _digest(data: bytes | bytearray, start: int) -> str:
    view = memoryview(data)
    digest = hashlib.sha256(view[:start])
    digest.update(b"0" * 64)
    digest.update(view[start + 64 :])
    return digest.hexdigest()
