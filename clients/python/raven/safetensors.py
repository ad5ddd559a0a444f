"""Reads safetensors without the safetensors package."""

from __future__ import annotations

import json
import math
import os
import struct
from typing import Any

#: NumPy's name of each element type that a Raven model uses.
_DTYPES = {"F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8", "U8": "u1", "BOOL": "?"}
_HEADER_BYTES_MAX = 100_000_000


def read_safetensors(path: "str | os.PathLike[str]") -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors of a file as NumPy arrays by name, and the file's metadata.

    Raises `ValueError` where the file is malformed and `ImportError` without NumPy.
    """
    import numpy

    with open(path, "rb") as file:
        content = file.read()
    header, base = _header(content)
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise ValueError(f"tensor {name}: element type {entry['dtype']} is not supported")
        begin, end = entry["data_offsets"]
        count = math.prod(entry["shape"])
        if not 0 <= begin <= end <= len(content) - base:
            raise ValueError(f"tensor {name}: data_offsets lie outside of the file")
        if (end - begin) != count * numpy.dtype(dtype).itemsize:
            raise ValueError(f"tensor {name}: shape {entry['shape']} does not fit its data")
        flat = numpy.frombuffer(content, dtype=dtype, count=count, offset=base + begin)
        tensors[name] = flat.reshape(entry["shape"])
    return tensors, metadata


def _header(content: bytes) -> tuple[dict[str, Any], int]:
    if len(content) < 8:
        raise ValueError("file is shorter than its length field")
    (length,) = struct.unpack_from("<Q", content)
    if length > _HEADER_BYTES_MAX or 8 + length > len(content):
        raise ValueError(f"header of {length} bytes does not fit the file")
    header = json.loads(content[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("header is not a JSON object")
    return header, 8 + length
