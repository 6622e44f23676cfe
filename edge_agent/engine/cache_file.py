"""A file that saves work, never trusted further than its checksum: what is read is what was written, under its key.

The key says what the data depends on (model, prefix, version of llama.cpp, settings). A file with another key, cut, or
with one bit flipped is as good as none: the caller makes the data anew.

Does not guard against: someone who writes a file with a right checksum on purpose. Whoever can do that on a box can
replace the program as well.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

from devices.durable import aside_of, finish

STATE_FILE, WORDS_FILE = "prefix.state", "tokens.table"
_HEAD = struct.Struct("<8s32s32sQ")  # magic, digest of the key, digest of key and data, size of the data
_MAGIC = b"EDGEKEP2"


def write_cache(path: Path, key: str, data: bytes | memoryview) -> None:
    """Write data under a key, whole or not at all. Raises OSError."""
    aside = aside_of(path)
    try:
        with aside.open("wb") as file:
            file.write(_HEAD.pack(_MAGIC, _digest(key), _digest(key, data), len(data)))
            file.write(data)
        finish(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def read_cache(path: Path, key: str) -> memoryview | None:
    """Return what was written under a key; None if there is nothing, or nothing that can be trusted."""
    try:
        whole = memoryview(path.read_bytes())
    except OSError:
        return None
    if len(whole) < _HEAD.size:
        return None
    magic, of_key, of_data, size_bytes = _HEAD.unpack_from(whole)
    data = whole[_HEAD.size :]
    if magic != _MAGIC or of_key != _digest(key) or size_bytes != len(data) or of_data != _digest(key, data):
        return None
    return data


def _digest(key: str, data: bytes | memoryview = b"") -> bytes:
    digest = hashlib.blake2b(key.encode(), digest_size=32)
    digest.update(data)
    return digest.digest()
