"""Server-Sent Events, as the HTML standard says they are read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """One event of a job.

    `id` is durable: passing it as `after` to `Client.events` continues behind it.
    """

    id: str | None
    name: str
    data: Any


def parse(lines: Iterable[bytes]) -> Iterator[Event]:
    """Yields the events of a stream of lines; an unfinished last one is dropped.

    Data that are JSON are decoded, other data stay text.
    """
    last_id: str | None = None
    name, data = "message", []
    for raw in lines:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if line == "":
            if data:
                yield Event(last_id, name, _decode("\n".join(data)))
            name, data = "message", []
            continue
        if line.startswith(":"):
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id" and "\0" not in value:
            last_id = value


def _decode(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
