"""The requester's side of the HTTP API."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote, urlsplit

from . import sse, uploads
from .errors import ApiError, JobFailed, TransportError
from .multipart import Form, Source, source_bytes

#: States that a job does not leave.
TERMINAL = ("completed", "failed", "cancelled")

# Three heartbeats of the event stream (15 s each): a silence longer than that is a dead connection.
_EVENTS_TIMEOUT_S = 45.0
_BACKOFF_S_MIN = 0.25
_BACKOFF_S_MAX = 10.0
_CHUNK_BYTES = 1 << 18
# Refusals that say nothing about the request: too many of them, or a coordinator that is restarting.
_PASSING = (429, 502, 503, 504)
# Of those, the ones of a coordinator that is away.
_ABSENT = (502, 503, 504)
# Between the attempts of a POST.
_POST_PAUSES_S = (0.25, 1.0)


class Client:
    """Talks to one coordinator with one API key. Opens a connection per request, so threads may share it.

    `base_url` is scheme, host and port, with a path where the coordinator is mounted below one.
    `key` may be `None` for the public routes. `timeout_s` bounds each wait for the network.
    """

    def __init__(self, base_url: str, key: str | None = None, *, timeout_s: float = 60.0):
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"base_url {base_url!r} is not an http or https address")
        self._secure = url.scheme == "https"
        self._host = url.hostname
        self._port = url.port
        self._prefix = url.path.rstrip("/")
        self._key = key
        self._timeout_s = timeout_s

    # --- data sets -------------------------------------------------------

    def upload_dataset(
        self,
        spec: Mapping[str, Any],
        files: Mapping[str, Source],
        idempotency_key: str | None = None,
        *,
        resumable: bool | None = None,
    ) -> dict[str, Any]:
        """Streams a data set to the coordinator and returns its facts, its `id` among them.

        `files` maps part names (`train_x`, `train_y`, `test_x`, `test_y`, `table` or `archive`) to
        paths, bytes or open binary files. Large ones, or all where `resumable` is true, are sent in
        pieces and go on where they broke off; otherwise the request is not repeated on failure.
        `idempotency_key` lets the caller repeat it without a second data set.
        """
        if resumable is None:
            resumable = sum(source_bytes(source) for source in files.values()) >= uploads.RESUMABLE_BYTES_MIN
        if resumable:
            sent = {name: self.upload_file(source) for name, source in files.items()}
            return self.create_dataset(spec, sent, idempotency_key)
        form = Form(spec, files)
        headers = {"Content-Type": form.content_type, "Content-Length": str(len(form))}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        with self._request("POST", "/v1/datasets", headers, form) as response:
            return json.load(response)

    def upload_file(
        self, source: Source, *, piece_bytes: int = uploads.PIECE_BYTES, retry_s_max: float = 300.0
    ) -> str:
        """Sends a file in pieces and returns the upload's id, for `create_dataset`.

        A file that this key began to send before, in this process or an earlier one, goes on where
        it broke off: it is known by its length and SHA-256.
        """
        with uploads.opened(source) as file:
            count, sha256 = uploads.measure(file)
            begun = [one for one in self.uploads() if one["bytes"] == count and one["sha256"] == sha256]
            upload = begun[0] if begun else self._post("/v1/uploads", {"bytes": count, "sha256": sha256}, None)
            uploads.send(self._document, upload, file, piece_bytes, retry_s_max)
            return upload["id"]

    def uploads(self) -> list[dict[str, Any]]:
        """Files of this key that no data set was made of yet, with how much of each has arrived."""
        return self._json("GET", "/v1/uploads")["uploads"]

    def delete_upload(self, upload_id: str) -> None:
        """Gives an upload up."""
        with self._request("DELETE", f"/v1/uploads/{quote(upload_id, safe='')}", {}, None) as response:
            response.read()

    def create_dataset(
        self, spec: Mapping[str, Any], files: Mapping[str, str], idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Makes a data set of uploads by their ids; they are used up by it."""
        return self._post("/v1/datasets", {"spec": spec, "files": files}, idempotency_key)

    def delete_dataset(self, dataset_id: str) -> None:
        """Deletes a data set. One that an open job uses is refused with an `ApiError`."""
        with self._request("DELETE", f"/v1/datasets/{quote(dataset_id, safe='')}", {}, None) as response:
            response.read()

    def datasets(self) -> list[dict[str, Any]]:
        """The facts of every data set of this key."""
        return self._json("GET", "/v1/datasets")["datasets"]

    def dataset(self, dataset_id: str) -> dict[str, Any]:
        """The facts of one data set."""
        return self._json("GET", f"/v1/datasets/{quote(dataset_id, safe='')}")

    # --- jobs ------------------------------------------------------------

    def create_job(
        self,
        job: Mapping[str, Any],
        idempotency_key: str | None = None,
        *,
        hold_nano_usd_max: int | None = None,
    ) -> dict[str, Any]:
        """Posts a job and returns it, its `id` among the fields.

        With `hold_nano_usd_max`, such as a quote's `price["most_nano_usd"]`, it is refused with an
        `ApiError` where it would hold more of the account's money by now.

        Where no answer comes it is sent again under the same `Idempotency-Key`, drawn
        where none is given: however often it arrives, there is one job.
        """
        if hold_nano_usd_max is not None:
            job = {**job, "hold_nano_usd_max": hold_nano_usd_max}
        return self._post("/v1/jobs", job, idempotency_key)

    def quote(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """What the job would come to: operations, price range and time range. Nothing is started."""
        return self._post("/v1/quotes", job, None)

    def jobs(self) -> list[dict[str, Any]]:
        """Every job of this key."""
        return self._json("GET", "/v1/jobs")["jobs"]

    def job(self, job_id: str) -> dict[str, Any]:
        """State, progress and result of one job."""
        return self._json("GET", self._job_path(job_id))

    def cancel(self, job_id: str) -> None:
        """Ends a job. A job that has ended already is refused with an `ApiError`."""
        self._post(self._job_path(job_id) + "/cancel", None, None)

    def top_up(
        self, job_id: str, amount_nano_usd: int, idempotency_key: str | None = None, *, reference: str | None = None
    ) -> dict[str, Any]:
        """Moves money of this key's account into the job's escrow; a paused job goes on once it suffices.

        Where no answer comes it is sent again under the same `Idempotency-Key`, drawn
        where none is given, so that the money moves once. That holds for a day; what is
        sent with the same `reference` moves money once at any time.
        """
        wish: dict[str, Any] = {"amount_nano_usd": amount_nano_usd}
        if reference is not None:
            wish["reference"] = reference
        return self._post(self._job_path(job_id) + "/top-up", wish, idempotency_key)

    def events(
        self, job_id: str, after: str | None = None, *, retry_s_max: float = 300.0
    ) -> Iterator[sse.Event]:
        """Yields the job's events until it ends, behind the event id `after` where one is given.

        A broken connection is made again with a growing pause and continues behind
        the last event that was yielded: none is lost, none comes twice. A refusal
        raises `ApiError`; a coordinator that stays away for `retry_s_max` seconds
        raises the last error.
        """
        pause_s = _BACKOFF_S_MIN
        heard_at = time.monotonic()
        while True:
            fresh = False
            try:
                for event in self._event_stream(job_id, after):
                    after = event.id if event.id is not None else after
                    fresh = True
                    yield event
                    if event.name == "state" and _state_of(event.data) in TERMINAL:
                        return
                # The stream was closed in order: a job that had ended before has nothing more to say.
                if not fresh and self.job(job_id)["state"] in TERMINAL:
                    return
                heard_at = time.monotonic()
            except (TransportError, ApiError) as error:
                if isinstance(error, ApiError) and error.status not in _PASSING:
                    raise
                if not fresh and time.monotonic() - heard_at > retry_s_max:
                    raise
            if fresh:
                pause_s, heard_at = _BACKOFF_S_MIN, time.monotonic()
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _BACKOFF_S_MAX)

    def wait(self, job_id: str, timeout_s: float | None = None) -> dict[str, Any]:
        """Blocks until the job has ended and returns it.

        Raises `JobFailed` where it ended without a model and `TimeoutError` when `timeout_s` is over.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            job = self.job(job_id)
            if job["state"] == "completed":
                return job
            if job["state"] in TERMINAL:
                raise JobFailed(job)
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"job {job_id} is still {job['state']} after {timeout_s} s")
            time.sleep(0.5)

    def download_model(self, job_id: str, path: "str | os.PathLike[str]") -> str:
        """Writes the best checkpoint as safetensors to `path` and returns the SHA-256 of the bytes."""
        return self._download(self._job_path(job_id) + "/model", path)

    def download_loader(self, job_id: str, path: "str | os.PathLike[str]") -> str:
        """Writes the generated NumPy script `load_model.py` to `path` and returns its SHA-256."""
        return self._download(self._job_path(job_id) + "/model/load_model.py", path)

    def certificate(self, job_id: str) -> dict[str, Any]:
        """The signed certificate of a strict job that has ended."""
        return self._json("GET", self._job_path(job_id) + "/certificate")

    def download_bundle(self, job_id: str, path: "str | os.PathLike[str]") -> str:
        """Writes what `coordinator verify-model` takes to `path` and returns its SHA-256.

        It holds the certificate as it was signed, data, graphs and published states."""
        return self._download(self._job_path(job_id) + "/bundle", path)

    # --- sites and the network ----------------------------------------------

    def create_site(self, name: str, origins: list[str]) -> dict[str, Any]:
        """Registers a partner site; the answer carries `site_key` and the `snippet` to paste."""
        return self._post("/v1/sites", {"name": name, "origins": origins}, None)

    def sites(self) -> list[dict[str, Any]]:
        """The sites of the key, newest first."""
        return self._json("GET", "/v1/sites")["sites"]

    def site(self, site_id: str) -> dict[str, Any]:
        """A site with its tags, origins, and what came of it in the last days."""
        return self._json("GET", self._site_path(site_id))

    def change_site(self, site_id: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """Changes `paused`, `refused_categories` or `origins`; what is not named stays."""
        return self._json("PATCH", self._site_path(site_id), change)

    def prove_site(self, site_id: str) -> dict[str, Any]:
        """Looks whether the site's origins are its own: only then it earns by them."""
        return self._json("POST", f"{self._site_path(site_id)}/prove", {})

    def check_work_token(self, site_id: str, token: str) -> dict[str, Any]:
        """Whether a visitor's token is good, and what the visitor did: `valid`, `work` or `reason`."""
        return self._json("POST", f"{self._site_path(site_id)}/work-tokens/check", {"token": token})

    def nodes(self) -> list[dict[str, Any]]:
        """The contributors that are online. Public."""
        return self._json("GET", "/v1/nodes")["nodes"]

    def stats(self) -> dict[str, Any]:
        """Totals of the network and the listed jobs with their loss curves. Public."""
        return self._json("GET", "/v1/stats")

    # --- keys and money -----------------------------------------------------

    def account(self) -> dict[str, Any]:
        """The account's name and balance, in nano-USD and in tokens."""
        return self._json("GET", "/v1/account")

    def keys(self) -> list[dict[str, Any]]:
        """The account's keys by their first characters, what they may do and when they were last used."""
        return self._json("GET", "/v1/keys")["keys"]

    def create_key(
        self, name: str, scopes: "list[str] | None" = None, expires_at: str | None = None
    ) -> dict[str, Any]:
        """Makes another key of the account; its `key` is shown this once.

        `scopes` are of `jobs`, `datasets`, `sites`, `account` and `keys`; without them it may do what this
        key may. `expires_at` is RFC 3339. Where no answer comes it is not sent again: `keys` tells whether it was made.
        """
        spec: dict[str, Any] = {"name": name}
        if scopes is not None:
            spec["scopes"] = scopes
        if expires_at is not None:
            spec["expires_at"] = expires_at
        return self._json("POST", "/v1/keys", spec)

    def revoke_key(self, key_id: str) -> None:
        """Revokes a key. One that may do more than the client's own is refused with an `ApiError`, and
        so is the last one that may do everything for ever."""
        with self._request("DELETE", f"/v1/keys/{quote(key_id, safe='')}", {}, None) as response:
            response.read()

    def withdraw(self, nano_usd: int, address: str, reference: str, *, pay: str = "usd") -> dict[str, Any]:
        """Asks for money to be paid out, in `usd` or `tokens`; it is held until the operator has decided.

        The same `reference` is held once, however often it is sent.
        """
        wish = {"nano_usd": nano_usd, "address": address, "reference": reference, "pay": pay}
        return self._post("/v1/account/withdrawals", wish, None)

    def withdrawals(self) -> list[dict[str, Any]]:
        """What was asked to be paid out, newest first, and how far each is."""
        return self._json("GET", "/v1/account/withdrawals")["withdrawals"]

    def cancel_withdrawal(self, withdrawal_id: str) -> dict[str, Any]:
        """Takes a withdrawal back that nobody has begun to pay; otherwise an `ApiError` with status 409."""
        return self._json("DELETE", f"/v1/account/withdrawals/{quote(withdrawal_id, safe='')}")

    # --- plumbing ----------------------------------------------------------

    @staticmethod
    def _site_path(site_id: str) -> str:
        return f"/v1/sites/{quote(site_id, safe='')}"

    @staticmethod
    def _job_path(job_id: str) -> str:
        return f"/v1/jobs/{quote(job_id, safe='')}"

    def _document(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> Any:
        with self._request(method, path, headers, body) as response:
            return json.load(response)

    def _json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        data = json.dumps(body).encode() if body is not None else None
        with self._request(method, path, headers, data) as response:
            return json.load(response)

    def _post(self, path: str, body: Mapping[str, Any] | None, idempotency_key: str | None) -> Any:
        """Posts under an idempotency key, and again while nothing but the network is at fault."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        data = b""
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        for pause_s in (*_POST_PAUSES_S, None):
            try:
                with self._request("POST", path, headers, data) as response:
                    return json.load(response)
            except (TransportError, ApiError) as error:
                passing = isinstance(error, TransportError) or error.status in _ABSENT
                if not passing or pause_s is None:
                    raise
                time.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")

    def _download(self, path: str, target: "str | os.PathLike[str]") -> str:
        digest = hashlib.sha256()
        # Written beside the target and renamed, so that a broken download leaves no half model behind.
        partial = f"{os.fspath(target)}.part"
        try:
            with self._request("GET", path, {}, None) as response:
                expected = response.length
                received = 0
                with open(partial, "wb") as file:
                    while chunk := response.read(_CHUNK_BYTES):
                        received += len(chunk)
                        digest.update(chunk)
                        file.write(chunk)
            if expected is not None and received != expected:
                raise TransportError(f"GET {path}: {received} of {expected} bytes arrived")
            os.replace(partial, target)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(partial)
            raise
        return digest.hexdigest()

    def _event_stream(self, job_id: str, after: str | None) -> Iterator[sse.Event]:
        headers = {"Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = after
        path = self._job_path(job_id) + "/events"
        with self._request("GET", path, headers, None, timeout_s=_EVENTS_TIMEOUT_S) as response:
            yield from sse.parse(response)

    @contextmanager
    def _request(
        self, method: str, path: str, headers: Mapping[str, str], body: Any, timeout_s: float | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=timeout_s or self._timeout_s)
        all_headers = {"Accept": "application/json", "User-Agent": "raven-client/0.1", **headers}
        if self._key is not None:
            all_headers["Authorization"] = f"Bearer {self._key}"
        try:
            response = _send(connection, method, self._prefix + path, body, all_headers)
            if response.status >= 400:
                raise ApiError.from_body(response.status, response.read(1 << 16))
            yield response
        except (OSError, http.client.HTTPException) as error:
            raise TransportError(f"{method} {path}: {error or type(error).__name__}") from error
        finally:
            connection.close()


def _send(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    """Sends a request; a peer that answers before it has read the whole body is still heard."""
    data = iter(body) if isinstance(body, Form) else body
    try:
        connection.request(method, path, body=data, headers=dict(headers))
    except (BrokenPipeError, ConnectionResetError):
        # The refusal of an upload may be waiting to be read; without one the error stands.
        if not isinstance(body, Form):
            raise
    return connection.getresponse()


def _state_of(data: Any) -> str | None:
    return data.get("state") if isinstance(data, dict) else None
