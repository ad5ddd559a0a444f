"""Keys and withdrawals against a stub that records requests."""

from __future__ import annotations

import json
import unittest

from raven import ApiError, Client, TransportError
from tests.stub import Stub, send, send_json


class Accounts(unittest.TestCase):
    def start(self, answer) -> Client:
        self.stub = Stub(answer)
        self.addCleanup(self.stub.close)
        return Client(self.stub.url, key="rk_test_abc", timeout_s=5)

    def test_a_key_is_made_with_what_was_said_and_no_more(self):
        client = self.start(lambda _, handler: send_json(handler, 201, {"id": "key_1", "key": "rk_test_x"}))
        self.assertEqual(client.create_key("laptop", ["jobs"])["key"], "rk_test_x")
        client.create_key("other", expires_at="2027-01-01T00:00:00Z")
        bodies = [json.loads(request.body) for request in self.stub.requests]
        self.assertEqual(bodies[0], {"name": "laptop", "scopes": ["jobs"]})
        self.assertEqual(bodies[1], {"name": "other", "expires_at": "2027-01-01T00:00:00Z"})

    def test_a_key_without_an_answer_is_not_made_twice(self):
        def answer(_, handler):
            handler.close_connection = True
            handler.connection.close()

        client = self.start(answer)
        with self.assertRaises(TransportError):
            client.create_key("laptop")
        self.assertEqual(len(self.stub.requests), 1)

    def test_keys_are_listed_and_revoked(self):
        def answer(request, handler):
            if request.method == "DELETE":
                send(handler, 204, b"")
            else:
                send_json(handler, 200, {"keys": [{"id": "key_1"}]})

        client = self.start(answer)
        self.assertEqual(client.keys(), [{"id": "key_1"}])
        client.revoke_key("key_1")
        request = self.stub.requests[-1]
        self.assertEqual((request.method, request.path), ("DELETE", "/v1/keys/key_1"))

    def test_a_withdrawal_says_where_and_in_what(self):
        def answer(request, handler):
            if request.method == "GET":
                send_json(handler, 200, {"withdrawals": [{"id": "wd_1", "state": "pending"}]})
            else:
                send_json(handler, 201, {"id": "wd_1", "state": "pending"})

        client = self.start(answer)
        self.assertEqual(client.withdraw(5, "IBAN 1", "may", pay="tokens")["id"], "wd_1")
        request = self.stub.requests[0]
        self.assertEqual(request.path, "/v1/account/withdrawals")
        wish = {"nano_usd": 5, "address": "IBAN 1", "reference": "may", "pay": "tokens"}
        self.assertEqual(json.loads(request.body), wish)
        self.assertEqual(client.withdrawals()[0]["state"], "pending")

    def test_a_withdrawal_is_taken_back(self):
        client = self.start(lambda _, handler: send_json(handler, 200, {"id": "wd_1", "state": "cancelled"}))
        self.assertEqual(client.cancel_withdrawal("wd_1")["state"], "cancelled")
        request = self.stub.requests[-1]
        self.assertEqual((request.method, request.path), ("DELETE", "/v1/account/withdrawals/wd_1"))

    def test_a_refusal_names_the_field(self):
        problem = {"status": 409, "title": "The reference is used", "detail": "d", "field": "reference"}
        client = self.start(lambda _, handler: send_json(handler, 409, problem))
        with self.assertRaises(ApiError) as caught:
            client.withdraw(5, "IBAN 1", "may")
        self.assertEqual((caught.exception.status, caught.exception.field), (409, "reference"))


if __name__ == "__main__":
    unittest.main()
