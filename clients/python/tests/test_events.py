"""The event stream: parsing, resuming, ending."""

from __future__ import annotations

import json
import unittest

from raven import ApiError, Client, TransportError
from raven.sse import Event, parse
from tests.stub import Stub, send_json


def wire(event_id: int, name: str, data: object) -> bytes:
    return f"id: {event_id}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


class Parsing(unittest.TestCase):
    def check(self, text: bytes, expected: list[Event]):
        self.assertEqual(list(parse(text.splitlines(keepends=True))), expected)

    def test_streams(self):
        cases = [
            (b"data: 1\n\n", [Event(None, "message", 1)]),
            (b"id: 7\nevent: round\ndata: {\"loss\": 0.5}\n\n", [Event("7", "round", {"loss": 0.5})]),
            (b": heartbeat\n\n: heartbeat\n\n", []),
            (b"data: a\ndata: b\n\n", [Event(None, "message", "a\nb")]),
            (b"data:x\r\n\r\n", [Event(None, "message", "x")]),
            (b"id: 1\ndata: 1\n\ndata: 2\n\n", [Event("1", "message", 1), Event("1", "message", 2)]),
            (b"event: gone\n\ndata: 3\n\n", [Event(None, "message", 3)]),
            (b"id: 1\ndata: unfinished\n", []),
            (b"id: a\0b\nretry: 5\ndata: 1\n\n", [Event(None, "message", 1)]),
        ]
        for text, expected in cases:
            with self.subTest(text=text):
                self.check(text, expected)


class Streaming(unittest.TestCase):
    def start(self, answer) -> Client:
        self.stub = Stub(answer)
        self.addCleanup(self.stub.close)
        return Client(self.stub.url, key="k", timeout_s=5)

    def test_resumes_behind_the_last_event_after_a_break(self):
        """Each connection delivers two events and half of a third one, then breaks."""
        total = 7

        def answer(request, handler):
            after = int(request.headers.get("last-event-id", 0))
            handler.send_response(200)
            handler.send_header("Content-Type", "text/event-stream")
            handler.end_headers()
            for number in range(after + 1, min(after + 2, total) + 1):
                name, data = ("state", {"state": "completed"}) if number == total else ("round", {"round": number})
                handler.wfile.write(wire(number, name, data))
            handler.wfile.write(b"id: 99\nevent: round\ndata: {")

        client = self.start(answer)
        events = list(client.events("job_1"))
        self.assertEqual([event.id for event in events], [str(n) for n in range(1, total + 1)])
        self.assertEqual(events[-1].data, {"state": "completed"})
        sent = [request.headers.get("last-event-id") for request in self.stub.requests]
        self.assertEqual(sent, [None, "2", "4", "6"])

    def test_starts_behind_a_given_event(self):
        def answer(request, handler):
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(wire(6, "state", {"state": "cancelled"}))

        client = self.start(answer)
        self.assertEqual([event.id for event in client.events("job_1", after="5")], ["6"])
        self.assertEqual(self.stub.requests[0].headers["last-event-id"], "5")

    def test_a_job_that_ended_before_yields_nothing_and_ends(self):
        def answer(request, handler):
            if request.path.endswith("/events"):
                handler.send_response(200)
                handler.end_headers()
            else:
                send_json(handler, 200, {"id": "job_1", "state": "completed"})

        self.assertEqual(list(self.start(answer).events("job_1", after="9")), [])

    def test_a_passing_refusal_is_tried_again(self):
        def answer(request, handler):
            if len(self.stub.requests) == 1:
                return send_json(handler, 503, {"title": "Draining"})
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(wire(1, "state", {"state": "failed"}))

        self.assertEqual(len(list(self.start(answer).events("job_1"))), 1)

    def test_a_lasting_refusal_is_raised(self):
        client = self.start(lambda _, handler: send_json(handler, 404, {"title": "No such job"}))
        with self.assertRaises(ApiError):
            list(client.events("job_1"))

    def test_a_coordinator_that_stays_away_is_given_up(self):
        stub = Stub(lambda *_: None)
        stub.close()
        with self.assertRaises(TransportError):
            list(Client(stub.url, timeout_s=1).events("job_1", retry_s_max=0.0))


if __name__ == "__main__":
    unittest.main()
