"""Files in pieces, against a stub that breaks off as lines do."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from raven import ApiError, Client, TransportError
from raven import uploads as pieces
from tests.stub import Stub, send_json


class Coordinator:
    """Keeps uploads as a coordinator does; `trouble` is called before every PATCH."""

    def __init__(self):
        self.uploads: dict[str, dict] = {}
        self.bytes: dict[str, bytearray] = {}
        self.trouble = lambda request, handler: False

    def shown(self, upload: dict) -> dict:
        offset = len(self.bytes[upload["id"]])
        return {**upload, "offset": offset, "complete": offset == upload["bytes"]}

    def __call__(self, request, handler):
        name = request.path.rsplit("/", 1)[1]
        if request.method == "POST" and request.path == "/v1/uploads":
            identity = f"up_{len(self.uploads)}"
            self.uploads[identity] = {"id": identity, **json.loads(request.body)}
            self.bytes[identity] = bytearray()
            send_json(handler, 201, self.shown(self.uploads[identity]))
        elif request.path == "/v1/uploads":
            send_json(handler, 200, {"uploads": [self.shown(one) for one in self.uploads.values()]})
        elif request.method == "PATCH":
            if self.trouble(request, handler):
                return
            kept = self.bytes[name]
            if int(request.headers["upload-offset"]) != len(kept):
                send_json(handler, 409, {"title": "no", "detail": str(len(kept))})
                return
            kept += request.body
            send_json(handler, 200, self.shown(self.uploads[name]))
        elif request.path == "/v1/datasets":
            send_json(handler, 201, {"id": "ds_1", **json.loads(request.body)})
        else:
            send_json(handler, 200, self.shown(self.uploads[name]))


class Uploads(unittest.TestCase):
    def setUp(self):
        self.coordinator = Coordinator()
        self.stub = Stub(self.coordinator)
        self.addCleanup(self.stub.close)
        self.client = Client(self.stub.url, key="rk_test_abc", timeout_s=5)
        pause = mock.patch.object(pieces, "_BACKOFF_S_MIN", 0.001)
        pause.start()
        self.addCleanup(pause.stop)
        self.data = bytes(range(256)) * 40

    def patches(self):
        return [request for request in self.stub.requests if request.method == "PATCH"]

    def test_a_file_is_cut_into_pieces(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "data"
            path.write_bytes(self.data)
            identity = self.client.upload_file(path, piece_bytes=4000)
        self.assertEqual(bytes(self.coordinator.bytes[identity]), self.data)
        self.assertEqual([len(request.body) for request in self.patches()], [4000, 4000, 2240])
        self.assertEqual([request.headers["upload-offset"] for request in self.patches()], ["0", "4000", "8000"])
        declared = json.loads(self.stub.requests[1].body)
        self.assertEqual(declared, {"bytes": 10240, "sha256": hashlib.sha256(self.data).hexdigest()})

    def test_what_broke_off_goes_on_from_what_arrived(self):
        def trouble(request, handler):
            if len(self.patches()) == 2:
                # Half of the piece arrives, then the line is gone.
                self.coordinator.bytes["up_0"] += request.body[:1500]
                handler.close_connection = True
                handler.connection.close()
                return True
            if len(self.patches()) == 3:
                send_json(handler, 503, {"title": "busy"})
                return True
            return False

        self.coordinator.trouble = trouble
        source = io.BytesIO(b"skipped" + self.data)
        source.seek(7)
        identity = self.client.upload_file(source, piece_bytes=4000)
        self.assertEqual(bytes(self.coordinator.bytes[identity]), self.data)
        offsets = [int(request.headers["upload-offset"]) for request in self.patches()]
        self.assertEqual(offsets, [0, 4000, 5500, 5500, 9500])

    def test_another_process_goes_on_with_the_same_file(self):
        digest = hashlib.sha256(self.data).hexdigest()
        for identity, upload in [
            ("up_0", {"bytes": len(self.data), "sha256": "0" * 64}),
            ("up_1", {"bytes": len(self.data), "sha256": digest}),
        ]:
            self.coordinator.uploads[identity] = {"id": identity, **upload}
            self.coordinator.bytes[identity] = bytearray(self.data[:10000])
        self.assertEqual(self.client.upload_file(self.data), "up_1")
        self.assertEqual([len(request.body) for request in self.patches()], [240])
        self.assertEqual(bytes(self.coordinator.bytes["up_1"]), self.data)

    def test_refusals_and_long_absences_are_raised(self):
        def refuse(_, handler):
            send_json(handler, 422, {"title": "wrong", "field": "sha256"})
            return True

        self.coordinator.trouble = refuse
        with self.assertRaises(ApiError) as caught:
            self.client.upload_file(self.data)
        self.assertEqual(caught.exception.field, "sha256")

        def vanish(_, handler):
            handler.close_connection = True
            handler.connection.close()
            return True

        self.coordinator.trouble = vanish
        with self.assertRaises(TransportError):
            self.client.upload_file(b"x", retry_s_max=0.05)

    def test_large_data_sets_are_sent_in_pieces(self):
        with mock.patch.object(pieces, "RESUMABLE_BYTES_MIN", 10000):
            dataset = self.client.upload_dataset({"name": "d"}, {"train_x": self.data, "train_y": b"abc"})
        self.assertEqual(dataset, {"id": "ds_1", "spec": {"name": "d"}, "files": {"train_x": "up_0", "train_y": "up_1"}})
        self.assertEqual(bytes(self.coordinator.bytes["up_1"]), b"abc")


if __name__ == "__main__":
    unittest.main()
