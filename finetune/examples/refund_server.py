"""The payments of a small shop over HTTP, for refunds.yaml: `python finetune/examples/refund_server.py [PORT]`.

POST /refunds {"transaction_id", "amount", "reason"} pays back, once for each Idempotency-Key. GET /transactions/ID
shows a payment. POST /tickets {"subject", "priority"} opens a ticket. What it knows is gone when it ends.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PORT = 8791
PAYMENTS: dict[str, dict[str, Any]] = {
    "TXN9982": {"amount": 50.0, "day": "2026-03-02", "state": "settled"},
    "TXN4410": {"amount": 19.99, "day": "2026-03-04", "state": "settled"},
    "TXN2077": {"amount": 240.0, "day": "2026-03-05", "state": "settled"},
}
FIRST_REFUND, FIRST_TICKET = 7712, 501


class RefundServer(ThreadingHTTPServer):
    """The shop's payments, refunds by key, and tickets."""

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.payments = {name: dict(payment) for name, payment in PAYMENTS.items()}
        self.refunds: dict[str, dict[str, Any]] = {}
        self.tickets: list[dict[str, Any]] = []

    def refund(self, key: str, wanted: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Pay back, once for each key; return the HTTP status and the answer."""
        if key in self.refunds:
            return 200, self.refunds[key]
        payment = self.payments.get(str(wanted.get("transaction_id")))
        if payment is None:
            return 200, {"status": "error", "reason": "no such transaction"}
        if payment["state"] != "settled" or float(wanted["amount"]) > payment["amount"]:
            return 200, {"status": "refused", "reason": f"{payment['state']}, {payment['amount']} was paid"}
        payment["state"] = "refunded"
        self.refunds[key] = {"status": "success", "refund_id": f"REF_{FIRST_REFUND + len(self.refunds)}"}
        return 200, self.refunds[key]

    def ticket(self, wanted: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Open a ticket."""
        self.tickets.append(wanted)
        return 200, {"ticket_id": f"CASE_{FIRST_TICKET + len(self.tickets) - 1}"}


class _Handler(BaseHTTPRequestHandler):
    server: RefundServer

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if payment := self.server.payments.get(name):
            self._answer(200, {"transaction_id": name, **payment})
        else:
            self._answer(200, {"status": "error", "reason": "no such transaction"})

    def do_POST(self) -> None:
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/refunds":
            self._answer(*self.server.refund(self.headers["Idempotency-Key"], wanted))
        else:
            self._answer(*self.server.ticket(wanted))

    def _answer(self, status: int, plain: dict[str, Any]) -> None:
        data = json.dumps(plain).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


if __name__ == "__main__":
    with RefundServer(int(sys.argv[1]) if len(sys.argv) > 1 else PORT) as server:
        print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()
