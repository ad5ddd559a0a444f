"""The client against a stub that records requests."""

from __future__ import annotations

import email.parser
import email.policy
import hashlib
import io
import json
import tempfile
import unittest
from pathlib import Path

from raven import ApiError, Client, JobFailed, TransportError
from tests.stub import Request, Stub, send, send_json


class StubCase(unittest.TestCase):
    def start(self, answer) -> Client:
        self.stub = Stub(answer)
        self.addCleanup(self.stub.close)
        return Client(self.stub.url, key="rk_test_abc", timeout_s=5)


class Requests(StubCase):
    def test_job_is_posted_as_json_with_the_key(self):
        def answer(_, handler):
            send_json(handler, 202, {"id": "job_1", "state": "queued"})

        client = self.start(answer)
        job = client.create_job({"name": "demo", "dataset": "ds_1"})
        self.assertEqual(job["id"], "job_1")
        request = self.stub.requests[0]
        self.assertEqual((request.method, request.path), ("POST", "/v1/jobs"))
        self.assertEqual(request.headers["authorization"], "Bearer rk_test_abc")
        self.assertEqual(request.headers["content-type"], "application/json")
        self.assertEqual(json.loads(request.body), {"name": "demo", "dataset": "ds_1"})

    def test_a_job_may_say_what_it_may_hold_at_most(self):
        def answer(request, handler):
            if request.path == "/v1/quotes":
                send_json(handler, 200, {"price": {"most_nano_usd": 700}})
            else:
                detail = {"detail": "would hold 800 now", "field": "hold_nano_usd_max", "limit": 700, "found": 800}
                send_json(handler, 422, detail)

        client = self.start(answer)
        job = {"name": "demo", "dataset": "ds_1"}
        most = client.quote(job)["price"]["most_nano_usd"]
        with self.assertRaises(ApiError) as caught:
            client.create_job(job, hold_nano_usd_max=most)
        refusal = caught.exception
        self.assertEqual((refusal.field, refusal.limit, refusal.found), ("hold_nano_usd_max", 700, 800))
        quoted, posted = (json.loads(request.body) for request in self.stub.requests)
        self.assertEqual(quoted, {"name": "demo", "dataset": "ds_1"})
        self.assertEqual(posted, {"name": "demo", "dataset": "ds_1", "hold_nano_usd_max": 700})
        self.assertEqual(job, {"name": "demo", "dataset": "ds_1"}, "the caller's own is as it was")

    def test_sites_are_read_changed_and_proven(self):
        client = self.start(lambda request, handler: send_json(handler, 200, {"sites": [], "valid": True}))
        self.assertEqual(client.sites(), [])
        client.site("site_1")
        client.change_site("site_1", {"paused": True})
        client.prove_site("site_1")
        self.assertTrue(client.check_work_token("site_1", "wt1.a.b")["valid"])
        asked = [(request.method, request.path) for request in self.stub.requests]
        site = "/v1/sites/site_1"
        self.assertEqual(asked, [("GET", "/v1/sites"), ("GET", site), ("PATCH", site), ("POST", f"{site}/prove"),
                                 ("POST", f"{site}/work-tokens/check")])
        self.assertEqual(json.loads(self.stub.requests[2].body), {"paused": True})

    def test_a_post_without_an_answer_is_sent_again_under_the_same_key(self):
        def answer(_, handler):
            if len(self.stub.requests) == 1:
                handler.close_connection = True
                handler.connection.close()
            elif len(self.stub.requests) == 2:
                send_json(handler, 503, {"title": "away"})
            else:
                send_json(handler, 202, {"id": "job_1"})

        client = self.start(answer)
        self.assertEqual(client.create_job({"name": "demo"})["id"], "job_1")
        keys = [request.headers["idempotency-key"] for request in self.stub.requests]
        self.assertEqual(len(keys), 3)
        self.assertEqual(len(set(keys)), 1)
        client.create_job({"name": "demo"}, idempotency_key="mine")
        self.assertEqual(self.stub.requests[-1].headers["idempotency-key"], "mine")
        self.assertNotEqual(keys[0], "mine")

    def test_a_refused_post_is_not_sent_again(self):
        client = self.start(lambda _, handler: send_json(handler, 422, {"title": "no"}))
        with self.assertRaises(ApiError):
            client.create_site("News", [])
        self.assertEqual(len(self.stub.requests), 1)

    def test_ids_cannot_leave_their_path_segment(self):
        client = self.start(lambda _, handler: send_json(handler, 200, {"state": "running"}))
        client.job("../keys?x=1#y")
        self.assertEqual(self.stub.requests[0].path, "/v1/jobs/..%2Fkeys%3Fx%3D1%23y")

    def test_no_key_means_no_authorization_header(self):
        self.start(lambda _, handler: send_json(handler, 200, {"contributors": 0}))
        Client(self.stub.url).stats()
        self.assertNotIn("authorization", self.stub.requests[0].headers)

    def test_site_cancel_and_lists_use_their_routes(self):
        lists = {"jobs": [1], "datasets": [2], "nodes": [3]}
        client = self.start(lambda _, handler: send_json(handler, 200, lists))
        client.create_site("News", ["http://news.localhost:1"])
        client.cancel("job_1")
        client.quote({"name": "demo"})
        self.assertEqual([client.jobs(), client.datasets(), client.nodes()], [[1], [2], [3]])
        client.dataset("ds_1")
        self.assertEqual(
            [(r.method, r.path) for r in self.stub.requests],
            [
                ("POST", "/v1/sites"),
                ("POST", "/v1/jobs/job_1/cancel"),
                ("POST", "/v1/quotes"),
                ("GET", "/v1/jobs"),
                ("GET", "/v1/datasets"),
                ("GET", "/v1/nodes"),
                ("GET", "/v1/datasets/ds_1"),
            ],
        )

    def test_a_top_up_names_its_amount_and_is_sent_once_more_under_one_name(self):
        answer = {"id": "job_1", "amount_nano_usd": 5, "escrow_nano_usd": 8}
        client = self.start(lambda _, handler: send_json(handler, 200, answer))
        self.assertEqual(client.top_up("job_1", 5, idempotency_key="mine"), answer)
        client.top_up("job_1", 5)
        first, second = self.stub.requests
        self.assertEqual((first.method, first.path), ("POST", "/v1/jobs/job_1/top-up"))
        self.assertEqual(json.loads(first.body), {"amount_nano_usd": 5})
        self.assertEqual(first.headers["idempotency-key"], "mine")
        self.assertNotIn(second.headers["idempotency-key"], ("", "mine"))
        client.top_up("job_1", 5, reference="invoice-7")
        self.assertEqual(json.loads(self.stub.requests[2].body), {"amount_nano_usd": 5, "reference": "invoice-7"})

    def test_a_path_before_the_routes_is_kept(self):
        self.start(lambda _, handler: send_json(handler, 200, {}))
        Client(self.stub.url + "/raven/").stats()
        self.assertEqual(self.stub.requests[0].path, "/raven/v1/stats")

    def test_other_schemes_are_refused(self):
        for url in ("ftp://host", "127.0.0.1:8080", "http://"):
            with self.assertRaises(ValueError):
                Client(url)


class Uploads(StubCase):
    def parts(self, request: Request):
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + request.body)
        return {
            part.get_param("name", header="content-disposition"): (
                part.get_filename(),
                part.get_content_type(),
                part.get_payload(decode=True),
            )
            for part in message.iter_parts()
        }

    def test_spec_comes_first_and_files_arrive_unchanged(self):
        client = self.start(lambda _, handler: send_json(handler, 201, {"id": "ds_1"}))
        blob = bytes(range(256)) * 3000  # longer than one chunk, with every byte value
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "train x.gz"
            path.write_bytes(blob)
            opened = io.BytesIO(b"skipped-rest")
            opened.seek(8)
            dataset = client.upload_dataset(
                {"name": "d", "format": "idx"}, {"train_x": path, "train_y": b"yy", "test_x": opened}
            )
        self.assertEqual(dataset, {"id": "ds_1"})
        request = self.stub.requests[0]
        self.assertEqual(int(request.headers["content-length"]), len(request.body))
        parts = self.parts(request)
        self.assertEqual(list(parts), ["spec", "train_x", "train_y", "test_x"])
        self.assertEqual(parts["spec"][1], "application/json")
        self.assertEqual(json.loads(parts["spec"][2]), {"name": "d", "format": "idx"})
        self.assertEqual(parts["train_x"], ("train x.gz", "application/octet-stream", blob))
        self.assertEqual(parts["train_y"][2], b"yy")
        self.assertEqual(parts["test_x"][2], b"rest")

    def test_a_missing_file_is_named_before_anything_is_sent(self):
        client = self.start(lambda _, handler: send_json(handler, 201, {}))
        with self.assertRaises(FileNotFoundError):
            client.upload_dataset({"name": "d"}, {"train_x": "/nonexistent/file"})
        self.assertEqual(self.stub.requests, [])


class Refusals(StubCase):
    def test_problem_documents_become_fields(self):
        problem = {"type": "about:blank", "title": "Too many units", "status": 422,
                   "detail": "a layer may have 65536 units", "field": "model.layers[2].units",
                   "limit": 65536, "found": 10**12}

        def answer(_, handler):
            send(handler, 422, json.dumps(problem).encode(), "application/problem+json")

        with self.assertRaises(ApiError) as caught:
            self.start(answer).create_job({})
        error = caught.exception
        self.assertEqual((error.status, error.field, error.limit, error.found),
                         (422, "model.layers[2].units", 65536, 10**12))
        self.assertIn("65536 units", str(error))

    def test_other_bodies_become_the_detail(self):
        client = self.start(lambda _, handler: send(handler, 502, b"<h1>bad gateway</h1>", "text/html"))
        with self.assertRaises(ApiError) as caught:
            client.jobs()
        self.assertEqual((caught.exception.status, caught.exception.field), (502, None))
        self.assertIn("bad gateway", caught.exception.detail)

    def test_no_listener_is_a_transport_error(self):
        stub = Stub(lambda *_: None)
        url = stub.url
        stub.close()
        with self.assertRaises(TransportError):
            Client(url, timeout_s=2).stats()


class Models(StubCase):
    def test_download_writes_the_file_and_returns_its_digest(self):
        blob = bytes(range(256)) * 2000
        client = self.start(lambda _, handler: send(handler, 200, blob, "application/octet-stream"))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.safetensors"
            digest = client.download_model("job_1", path)
            self.assertEqual(path.read_bytes(), blob)
            self.assertEqual(digest, hashlib.sha256(blob).hexdigest())
            self.assertEqual([p.name for p in Path(folder).iterdir()], ["m.safetensors"])
            client.download_loader("job_1", Path(folder) / "load_model.py")
            client.download_bundle("job_1", Path(folder) / "bundle.tar")
        self.assertEqual(
            [r.path for r in self.stub.requests],
            ["/v1/jobs/job_1/model", "/v1/jobs/job_1/model/load_model.py", "/v1/jobs/job_1/bundle"],
        )

    def test_a_certificate_is_read(self):
        client = self.start(lambda _, handler: send(handler, 200, b'{"body":{"version":1}}'))
        self.assertEqual(client.certificate("job_1"), {"body": {"version": 1}})
        self.assertEqual(self.stub.requests[0].path, "/v1/jobs/job_1/certificate")

    def test_a_download_that_breaks_off_leaves_no_file(self):
        def answer(_, handler):
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b"only this")
            handler.close_connection = True

        client = self.start(answer)
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaises(TransportError):
                client.download_model("job_1", Path(folder) / "m.safetensors")
            self.assertFalse((Path(folder) / "m.safetensors").exists())

    def test_a_stream_that_breaks_off_leaves_no_file(self):
        def answer(_, handler):
            handler.protocol_version = "HTTP/1.1"
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            handler.wfile.write(b"9\r\nonly this\r\n")
            handler.close_connection = True

        client = self.start(answer)
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaises(TransportError):
                client.download_bundle("job_1", Path(folder) / "bundle.tar")
            self.assertEqual(list(Path(folder).iterdir()), [])


class Waiting(StubCase):
    def test_wait_returns_the_completed_job(self):
        states = iter(["queued", "running", "completed"])
        client = self.start(lambda _, handler: send_json(handler, 200, {"id": "j", "state": next(states)}))
        self.assertEqual(client.wait("j")["state"], "completed")

    def test_wait_raises_for_a_failed_job_with_its_reason(self):
        job = {"id": "j", "state": "failed", "reason": "the loss became NaN in round 3"}
        client = self.start(lambda _, handler: send_json(handler, 200, job))
        with self.assertRaises(JobFailed) as caught:
            client.wait("j")
        self.assertEqual(caught.exception.job, job)
        self.assertIn("NaN in round 3", str(caught.exception))

    def test_wait_ends_at_its_time_limit(self):
        client = self.start(lambda _, handler: send_json(handler, 200, {"id": "j", "state": "running"}))
        with self.assertRaises(TimeoutError):
            client.wait("j", timeout_s=0)


if __name__ == "__main__":
    unittest.main()
