"""IDX, the format of MNIST and its kin: big-endian header, then raw elements."""

from __future__ import annotations

import gzip
import math
import os
import struct

_U8 = 0x08


def write_idx(shape: tuple[int, ...], data: bytes) -> bytes:
    """An IDX file of unsigned bytes.

    `data` holds the elements row by row, `prod(shape)` of them.
    """
    if math.prod(shape) != len(data):
        raise ValueError(f"shape {shape} takes {math.prod(shape)} bytes, {len(data)} given")
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, _U8, len(shape), *shape) + data


def read_idx(path: "str | os.PathLike[str]") -> tuple[tuple[int, ...], bytes]:
    """Shape and elements of an IDX file of unsigned bytes, gzip-compressed or not."""
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    opener = gzip.open if compressed else open
    with opener(path, "rb") as file:
        content = file.read()
    if len(content) < 4 or content[:3] != bytes([0, 0, _U8]):
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    rank = content[3]
    head = 4 + 4 * rank
    if len(content) < head:
        raise ValueError(f"{path}: {len(content)} bytes, {head} needed for the header")
    shape = struct.unpack_from(f">{rank}I", content, 4)
    if len(content) - head != math.prod(shape):
        raise ValueError(f"{path}: shape {shape} does not fit {len(content) - head} bytes")
    return shape, content[head:]
