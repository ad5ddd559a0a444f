"""The visitors: browsers that open the partner's page and click through its card."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

OPEN_S_MAX = 120.0
CLOSE_S_MAX = 15.0


class OpenFailed(Exception):
    """A visitor's browser could not be brought to contribute."""


def _reader(stream, lines: "queue.Queue[dict | None]") -> None:
    for line in stream:
        with contextlib.suppress(ValueError):
            lines.put(json.loads(line))
    lines.put(None)


@contextlib.contextmanager
def contributing(root: Path, page: str, count: int, share: float, log: Path) -> Iterator[Callable[[], None]]:
    """`count` visitors of `page` who said yes, until the block ends.

    Yields a check that raises `OpenFailed` once a visitor or the browser is gone.
    """
    command = ["node", root / "tests/e2e/contributors.mjs", page, str(count), str(share)]
    with open(log, "wb") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            start_new_session=True,
        )
        lines: "queue.Queue[dict | None]" = queue.Queue()
        threading.Thread(target=_reader, args=(process.stdout, lines), daemon=True).start()
        try:
            _wait(lines, count, log)
            yield lambda: _check(lines, log)
        finally:
            # The end of its input tells it to close the browser.
            process.stdin.close()
            try:
                process.wait(CLOSE_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(lines: "queue.Queue[dict | None]", count: int, log: Path) -> None:
    # They are opened one after the other, so each has the time to itself.
    deadline = time.monotonic() + OPEN_S_MAX
    ready = 0
    while ready < count:
        try:
            line = lines.get(timeout=max(0.1, deadline - time.monotonic()))
        except queue.Empty:
            raise OpenFailed(f"{ready} of {count} visitors contribute after {OPEN_S_MAX:.0f} s; see {log}") from None
        _raise_if_gone(line, log)
        ready = line.get("contributing", ready)
        deadline = time.monotonic() + OPEN_S_MAX


def _check(lines: "queue.Queue[dict | None]", log: Path) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            _raise_if_gone(lines.get_nowait(), log)


def _raise_if_gone(line: dict | None, log: Path) -> None:
    if line is None:
        raise OpenFailed(f"the browser ended:\n{log.read_text(errors='replace')[-2000:]}")
    if "error" in line:
        raise OpenFailed(line["error"])
