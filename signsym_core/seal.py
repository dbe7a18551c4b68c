"""The digest that a file carries in itself, so that damage is noticed wherever and whenever the file is read.

A sealed file holds the sha256 of its own bytes, taken while zeros stood in the digest's place. It stays a file that any
reader of its format opens: the seal is a text in a Parquet file's footer, in a safetensors file's header, in a JSON
object. Nothing beside the file can be lost, left behind or mixed up, and a bucket is asked once.

One damaged bit never turns a sealed file into one that looks as if it had been written before there were seals: KEY and
MARK would both have to be gone.
"""

from __future__ import annotations

import hashlib

#: What the seal is called in a file's metadata, and how its text begins; 64 hexadecimal digits follow.
KEY, MARK = "signsym_seal", "signsym-sha256:"
#: The text that is put into a file before it is sealed.
BLANK = MARK + "0" * 64
#: Bytes at a file's end and at its beginning in which a seal stands: a Parquet footer, a safetensors header.
TAIL, HEAD = 1 << 16, 1 << 22


class DamagedError(ValueError):
    """A file that is not what was written."""


def sealed(data: bytes | memoryview) -> bytearray:
    """A copy of `data`, which holds BLANK under KEY, with its digest in place of the zeros."""
    whole = bytearray(data)
    start = _find(whole, MARK.encode())
    assert start >= 0, "only what holds BLANK can be sealed"
    start += len(MARK)
    whole[start : start + 64] = _digest(whole, start).encode()
    return whole


def check(data: bytes) -> bool:
    """Whether a file is sealed; False for one without a seal. Raises DamagedError where it is not what was sealed."""
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
