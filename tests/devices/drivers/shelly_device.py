"""A Shelly made from its answers: it answers RPC over HTTP as the devices do, with a password if it has one.

Source: Shelly Gen2 Device API, "RPC over HTTP", "Authentication", "Cover"; RFC 7616.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit


def sha256(*parts: str) -> str:
    return hashlib.sha256(":".join(parts).encode()).hexdigest()


class ShellyDevice:
    """One device at a port of its own.

    Args:
        answers: Shelly.GetStatus and, for a password, Shelly.GetDeviceInfo.
        password: which it takes, of the user admin.
        cover_s: how long a cover takes from one end to the other.
    """

    def __init__(self, answers: dict[str, Any], password: str = "", cover_s: float = 0.5) -> None:
        self.status = json.loads(json.dumps(answers["Shelly.GetStatus"]))
        self.realm = answers["Shelly.GetDeviceInfo"]["id"]
        self.password, self.cover_s = password, cover_s
        self.refused = self.carried_out = 0
        self.is_stuck = False
        self._nonces: set[str] = set()
        self._move: tuple[float, float, float] | None = None  # the cover's: from, to, since
        device = self

        class Handler(_Handler):
            owner = device

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def challenge(self) -> str:
        """Return a new challenge."""
        self.refused += 1
        self._nonces.add(nonce := secrets.token_hex(4))
        return f'Digest qop="auth", realm="{self.realm}", nonce="{nonce}", algorithm=SHA-256'

    def is_let_in(self, verb: str, header: str) -> bool:
        """Return whether a request may come in; a nonce is good for once."""
        if not self.password:
            return True
        given = dict(re.findall(r'(\w+)="?([^",]*)"?', header))
        if given.get("nonce") not in self._nonces or given["username"] != "admin" or given["algorithm"] != "SHA-256":
            return False
        self._nonces.remove(given["nonce"])
        secret, what = sha256("admin", self.realm, self.password), sha256(verb, given["uri"])
        wanted = sha256(secret, given["nonce"], given["nc"], given["cnonce"], given["qop"], what)
        return given["response"] == wanted

    def call(self, method: str, arguments: dict[str, Any]) -> tuple[int, Any]:
        """Return status and answer of a method."""
        name, _, verb = method.partition(".")
        component = self.status.get(f"{name.lower()}:{arguments.get('id')}")
        if component is None:
            return 404, {"code": 404, "message": f"No handler for {method}"}
        self._settle(component)
        if verb == "GetStatus":
            return 200, component
        self.carried_out += 1
        if name == "Cover":
            return self._go(component, verb, arguments)
        assert verb == "Set"
        known = {"on": "output", "brightness": "brightness", "ct": "ct", "rgb": "rgb"}
        if not _is_rgb(arguments.get("rgb", [0, 0, 0])):
            return 500, {"code": -103, "message": "Argument 'rgb' is invalid!"}
        component |= {known[key]: value for key, value in arguments.items() if key != "id" and not self.is_stuck}
        return 200, {"was_on": False}

    def _go(self, cover: dict[str, Any], verb: str, arguments: dict[str, Any]) -> tuple[int, Any]:
        if not cover["pos_control"] or cover["current_pos"] is None:
            return 500, {"code": -106, "message": "Cover not calibrated!"}
        assert verb == "GoToPosition" and set(arguments) == {"id", "pos"}
        if not self.is_stuck:
            self._move = cover["current_pos"], arguments["pos"], time.monotonic()
            state = "opening" if arguments["pos"] > cover["current_pos"] else "closing"
            cover |= {"state": state, "target_pos": arguments["pos"], "move_timeout": 2 * self.cover_s}
        return 200, None

    def _settle(self, component: dict[str, Any]) -> None:
        """Let the cover be where it is by now."""
        if self._move is None or "current_pos" not in component:
            return
        start, end, since_s = self._move
        way = (time.monotonic() - since_s) / self.cover_s * 100
        component["current_pos"] = int(start + way * (1 if end > start else -1))
        if way >= abs(end - start):
            component |= {"current_pos": end, "state": {0: "closed", 100: "open"}.get(end, "stopped")}
            component.pop("move_timeout")
            self._move = None


def _is_rgb(value: Any) -> bool:
    is_list = isinstance(value, list) and len(value) == 3
    return is_list and all(type(part) is int and 0 <= part <= 255 for part in value)


class _Handler(BaseHTTPRequestHandler):
    owner: ShellyDevice

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        arguments = {key: json.loads(values[0]) for key, values in parse_qs(parts.query).items()}
        self._answer(parts.path, arguments)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(self.path, body)

    def _answer(self, path: str, arguments: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json"}
        if self.owner.is_let_in(self.command, self.headers.get("Authorization", "")):
            status, answer = self.owner.call(path.removeprefix("/rpc/"), arguments)
        else:
            status, answer = 401, None
            headers["WWW-Authenticate"] = self.owner.challenge()
        raw = json.dumps(answer).encode()
        self.send_response(status)
        for name, text in (headers | {"Content-Length": str(len(raw))}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        """Say nothing on stderr."""
