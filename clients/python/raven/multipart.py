"""multipart/form-data (RFC 7578) that is streamed, never held in memory."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Union

#: A file to upload: its path, its bytes, or an open binary file that can seek.
Source = Union[str, "os.PathLike[str]", bytes, BinaryIO]

_CHUNK_BYTES = 1 << 18


def _quoted(name: str) -> str:
    """A parameter value as browsers write it: quotes and line breaks are percent-encoded."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def source_bytes(source: Source) -> int:
    """Bytes from where the source stands to its end."""
    if isinstance(source, bytes):
        return len(source)
    if isinstance(source, (str, os.PathLike)):
        return os.stat(source).st_size
    here = source.tell()
    end = source.seek(0, os.SEEK_END)
    source.seek(here)
    return end - here


def _read(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _chunks(source: Source) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
    elif isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            yield from _read(file)
    else:
        yield from _read(source)


class Form:
    """A JSON part called `spec` followed by files, in the order given.

    The length is known before the first byte is sent, so that the coordinator
    can refuse an upload that is too large without reading it.
    """

    def __init__(self, spec: Mapping[str, Any], files: Mapping[str, Source]):
        self.boundary = "raven-" + secrets.token_hex(16)
        text = json.dumps(spec).encode()
        self._parts: list[tuple[bytes, Source]] = [
            (self._head("spec", None, "application/json"), text)
        ]
        for name, source in files.items():
            file_name = os.path.basename(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else name
            self._parts.append((self._head(name, file_name, "application/octet-stream"), source))
        self._end = f"--{self.boundary}--\r\n".encode()

    def _head(self, name: str, file_name: str | None, content_type: str) -> bytes:
        disposition = f'form-data; name="{_quoted(name)}"'
        if file_name is not None:
            disposition += f'; filename="{_quoted(file_name)}"'
        return (
            f"--{self.boundary}\r\nContent-Disposition: {disposition}\r\n"
            f"Content-Type: {content_type}\r\n\r\n"
        ).encode()

    @property
    def content_type(self) -> str:
        """Value of the Content-Type header."""
        return f"multipart/form-data; boundary={self.boundary}"

    def __len__(self) -> int:
        parts = sum(len(head) + source_bytes(source) + 2 for head, source in self._parts)
        return parts + len(self._end)

    def __iter__(self) -> Iterator[bytes]:
        for head, source in self._parts:
            yield head
            yield from _chunks(source)
            yield b"\r\n"
        yield self._end
