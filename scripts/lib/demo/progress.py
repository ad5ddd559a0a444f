"""A line that says how far a job is."""

from __future__ import annotations

import shutil
import sys
import time

_BAR = 24
# Without a terminal each line stays, so they come less often.
_PLAIN_EVERY_S = 10.0


class Progress:
    def __init__(self, stream=sys.stderr):
        self._stream = stream
        self._live = stream.isatty()
        self._last = 0.0

    def show(self, job: dict) -> None:
        now = time.monotonic()
        if not self._live and now - self._last < _PLAIN_EVERY_S:
            return
        self._last = now
        text = line(job)
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write("\r\x1b[K" + text[:width])
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def end(self) -> None:
        if self._live:
            self._stream.write("\n")
            self._stream.flush()


def line(job: dict) -> str:
    """One job as `GET /v1/jobs/{id}` shows it, in one line."""
    rounds = max(1, job.get("rounds") or 1)
    part = min(1.0, (job.get("round") or 0) / rounds)
    done = round(part * _BAR)
    pieces = [f"[{'#' * done}{'.' * (_BAR - done)}] {part:4.0%}", f"epoch {job.get('epoch', 0)}/{job.get('epochs', 0)}"]
    train = job.get("train") or {}
    if train.get("loss") is not None:
        pieces.append(f"loss {train['loss']:.3f}")
    evaluation = job.get("evaluation") or {}
    if evaluation.get("accuracy") is not None:
        pieces.append(f"test accuracy {evaluation['accuracy']:.2%}")
    pieces.append(f"{job.get('contributors', 0)} contributors")
    pieces.append(f"{job.get('images_per_s') or 0:.0f} images/s")
    if job.get("state") not in ("running", "completed"):
        pieces.append(job.get("state", ""))
    return "  ".join(pieces)
