"""What can go wrong, one class per thing that a caller would treat differently."""

from __future__ import annotations

import json
from typing import Any


class RavenError(Exception):
    """Anything that this library raises on purpose."""


class TransportError(RavenError):
    """The coordinator could not be reached, or the connection broke."""


class JobFailed(RavenError):
    """A job ended without a model.

    `job` is the job's last state.
    """

    def __init__(self, job: dict[str, Any]):
        super().__init__(f"job {job.get('id')} {job.get('state')}: {job.get('reason')}")
        self.job = job


class ApiError(RavenError):
    """A refusal of the coordinator (RFC 9457 problem details).

    `field`, `limit` and `found` are `None` where the refusal names none.
    """

    def __init__(self, status: int, problem: dict[str, Any]):
        self.status = status
        self.type = problem.get("type")
        self.title = problem.get("title")
        self.detail = problem.get("detail")
        self.field = problem.get("field")
        self.limit = problem.get("limit")
        self.found = problem.get("found")
        text = f"{status} {self.title or ''}".strip()
        if self.detail:
            text += f": {self.detail}"
        if self.field:
            text += f" (field {self.field})"
        super().__init__(text)

    @classmethod
    def from_body(cls, status: int, body: bytes) -> "ApiError":
        """Reads a problem document; a body that is none becomes the detail."""
        try:
            problem = json.loads(body)
        except ValueError:
            problem = None
        if not isinstance(problem, dict):
            problem = {"detail": body[:500].decode("utf-8", "replace")}
        return cls(status, problem)
