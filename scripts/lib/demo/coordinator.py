"""Starts and stops the coordinator binary."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START_S_MAX = 60.0
STOP_S_MAX = 15.0


class StartFailed(Exception):
    """The coordinator did not come up."""


@dataclass(frozen=True)
class Running:
    url: str
    key: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _wait_ready(url: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StartFailed(f"the coordinator ended with {process.returncode}:\n{_tail(log)}")
        with contextlib.suppress(OSError, urllib.error.URLError):
            with urllib.request.urlopen(f"{url}/readyz", timeout=2) as response:
                if response.status == 200:
                    return
        time.sleep(0.1)
    raise StartFailed(f"the coordinator was not ready after {START_S_MAX:.0f} s:\n{_tail(log)}")


@contextlib.contextmanager
def running(root: Path, data: Path, log: Path) -> Iterator[Running]:
    """A coordinator on a free port of the loopback address, with an API key, until the block ends."""
    binary = Path(os.environ["CARGO_TARGET_DIR"]) / "release/coordinator"
    printed = subprocess.run(
        [binary, "keys", "create", "--data", data], check=True, capture_output=True, text=True
    ).stdout
    key = re.search(r"rk_\w+", printed)
    if key is None:
        raise StartFailed(f"'keys create' printed no key: {printed!r}")
    port = free_port()
    command = [
        binary, "serve", "--data", data, "--listen", f"127.0.0.1:{port}",
        "--embed", root / "web-snippet/dist", "--www", root / "www/dist",
        "--kernel", root / "dist/kernel/raven_kernel.wasm",
        # Three visitors do here what takes thousands on the web: each moves more than a visitor should.
        "--visit-mb", "100000",
    ]
    url = f"http://127.0.0.1:{port}"
    with open(log, "wb") as output:
        # Its own session, so that Ctrl-C reaches this program first and it is ended in order.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            _wait_ready(url, process, log)
            yield Running(url, key.group())
        finally:
            process.terminate()
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
