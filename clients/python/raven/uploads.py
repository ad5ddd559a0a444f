"""Files that are sent in pieces and go on where they broke off."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, BinaryIO, Iterator

from .errors import ApiError, TransportError
from .multipart import Source

#: Above this many bytes a data set is sent in pieces: below it, sending it again costs less than asking.
RESUMABLE_BYTES_MIN = 64 << 20
#: Bytes of one piece; a break costs less than one.
PIECE_BYTES = 32 << 20
_READ_BYTES = 1 << 20
_BACKOFF_S_MIN = 0.25
_BACKOFF_S_MAX = 10.0
# Refusals that pass: a slow line, another request of ours that still holds on, a coordinator that is busy or restarts.
_PASSING = (408, 409, 502, 503, 504)


@contextmanager
def opened(source: Source) -> Iterator[BinaryIO]:
    """The source as a file that can seek, from where it stands."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            yield file
    else:
        yield source


def measure(file: BinaryIO) -> tuple[int, str]:
    """Number of bytes from here to the end, and their SHA-256. The file stands where it stood."""
    start = file.tell()
    digest = hashlib.sha256()
    count = 0
    while piece := file.read(_READ_BYTES):
        digest.update(piece)
        count += len(piece)
    file.seek(start)
    return count, digest.hexdigest()


def send(
    request: Callable[..., Any], upload: dict[str, Any], file: BinaryIO, piece_bytes: int, retry_s_max: float
) -> None:
    """Sends what is missing of an upload.

    `request(method, path, headers, body)` answers a JSON document. After a break it is asked how much
    has arrived; a coordinator that stays away for `retry_s_max` seconds raises the last error.
    """
    start = file.tell()
    path = f"/v1/uploads/{upload['id']}"
    pause_s, moved_at = _BACKOFF_S_MIN, time.monotonic()
    known = True
    while not upload["complete"]:
        before = upload["offset"]
        try:
            if known:
                file.seek(start + before)
                headers = {"Content-Type": "application/octet-stream", "Upload-Offset": str(before)}
                upload = request("PATCH", path, headers, file.read(piece_bytes))
            else:
                upload = request("GET", path, {}, None)
                known = True
        except (TransportError, ApiError) as error:
            if isinstance(error, ApiError) and error.status not in _PASSING:
                raise
            if time.monotonic() - moved_at > retry_s_max:
                raise
            known = False
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _BACKOFF_S_MAX)
            continue
        if upload["offset"] != before:
            pause_s, moved_at = _BACKOFF_S_MIN, time.monotonic()
