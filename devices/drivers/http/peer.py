"""An HTTP server whose JSON is a simulated world: Shelly's RPC, and plain paths."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from devices.driver import Binding
from devices.drivers.http.digest import fields_of, response_of
from devices.drivers.http.driver import HttpSettings, JsonPlace
from devices.drivers.json_values import put
from devices.simulation.peer import RealTimeWorld
from devices.site.schema import DataSchema, Value

NONCE = "60dc2c5c"
CHALLENGE = f'Digest qop="auth", realm="simulated", nonce="{NONCE}", algorithm=SHA-256'


class HttpPeer:
    """The server behind one `http` driver of a site."""

    def __init__(self, settings: HttpSettings, bindings: Mapping[str, Binding], world: RealTimeWorld) -> None:
        parts = urlsplit(settings.url)
        self.world, self.bindings, self._settings = world, bindings, settings
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._server: ThreadingHTTPServer | None = None
        self.done: dict[str, tuple[int, Any]] = {}
        self.carried_out = 0

    @property
    def where(self) -> str:
        """Where it listens."""
        return f"http://{self._address[0]}:{self._address[1]}"

    def start(self) -> None:
        """Listen. Raises OSError if the port is taken."""
        peer = self

        class Handler(_Handler):
            owner = peer

        self._server = _Server(self._address, Handler)
        Thread(target=self._server.serve_forever, args=(0.05,), name=self.where, daemon=True).start()

    def stop(self) -> None:
        """Stop listening; every connection is for one request only."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def wait_while_mute(self) -> None:
        """Keep an answer back."""
        self.world.wait_while_mute(lambda: self._server is not None)

    def show(self, path: str) -> tuple[int, Any]:
        """Return status and JSON for a GET of a path with query."""
        shown: dict[str, Any] = {}
        for device, binding in self.bindings.items():
            for name, place in binding.at.items():
                if place.read_path != path:
                    continue
                values = self.world.read(device)
                if values is None:
                    return 503, {"error": "no answer"}
                if not place.key:
                    return 200, place.to_raw(values[name])
                put(shown, place.key, place.to_raw(values[name]))
        return (200, shown) if shown else (404, {"error": "not found"})

    def carry_out(self, verb: str, path: str, body: Any, headers: Mapping[str, str]) -> tuple[int, Any] | None:
        """Return status and JSON for an action with output, or None if the path is of none.

        What has a key of its own is done once, and answered alike when it comes again.
        """
        for device, binding in self.bindings.items():
            for action, place in binding.calls.items():
                match = re.fullmatch(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(place.path)), unquote(path))
                if place.verb != verb or not match or any(body.get(key) != told for key, told in place.body.items()):
                    continue
                plain = binding.device.actions[action]
                key = headers.get(place.key_header, "") if place.key_header else ""
                if key in self.done:
                    return self.done[key]
                raw = match.groupdict() | {name: body[sent] if sent else body for name, sent in place.send.items()}
                arguments = {name: _typed(raw[name], schema) for name, schema in plain.input.items()}
                answer = self._carry_out(device, action, arguments)
                if key:
                    self.done[key] = answer
                return answer
        return None

    def _carry_out(self, device: str, action: str, arguments: dict[str, Value]) -> tuple[int, Any]:
        place = self.bindings[device].calls[action]
        with self.world.now() as world:
            if device in world.broken:
                return 503, {"error": "no answer"}
            if device in world.stuck:
                return 409, {"error": "not now"}
            values = world.call(device, action, arguments)
        self.carried_out += 1
        if values is None:
            return 404, {"error": "not found"}
        shown: dict[str, Any] = {}
        for name, value in values.items():
            where = place.place_of(name)
            put(shown, where.key, where.to_raw(value))
        return 200, shown.get("", shown)

    def is_let_in(self, verb: str, headers: Mapping[str, str], query: dict[str, list[str]]) -> bool:
        """Return whether a request has the secret that the settings name."""
        auth = self._settings.auth
        if auth is None:
            return True
        secret = os.environ.get(auth.secret_env, "")
        if auth.scheme == "apikey":
            return bool(secret) and secret in (headers.get(auth.name), *query.get(auth.name, []))
        if auth.scheme == "digest":
            given = fields_of(headers.get("Authorization", ""))
            is_known = given["qop"] == "auth" and given["nonce"] == NONCE
            return bool(secret) and is_known and given["response"] == response_of(given, verb, secret)
        wanted = f"Bearer {secret}"
        if auth.scheme == "basic":
            wanted = f"Basic {base64.b64encode(f'{auth.user}:{secret}'.encode()).decode()}"
        return bool(secret) and headers.get("Authorization") == wanted

    def plain_path(self, target: str) -> str:
        """Return a request's path with its query, without the key that lets it in."""
        parts, auth = urlsplit(target), self._settings.auth
        left = [one for one in parts.query.split("&") if one and not (auth and one.startswith(f"{auth.name}="))]
        return parts.path + (f"?{'&'.join(left)}" if left else "")

    def take(self, verb: str, path: str, body: Any) -> tuple[int, Any]:
        """Return status and JSON for a POST or PUT, and do what it asks."""
        is_known = False
        for device, binding in self.bindings.items():
            values = {}
            for name, place in binding.at.items():
                if verb == place.verb and (raw := _raw_for(place, path, body)) is not None:
                    wanted: Any = raw
                    if place.key:
                        put(wanted := {}, place.key, raw)
                    values[name] = place.to_value(wanted, binding.device.properties[name])
            if values:
                is_known = True
                if not self.world.write(device, values):
                    return 503, {"error": "no answer"}
        return (200, {"was_on": False}) if is_known else (404, {"error": "not found"})


def _typed(raw: Any, schema: DataSchema) -> Value:
    """Return an argument as its schema has it; in a path it is text."""
    value: Value = raw if schema.type == "string" or not isinstance(raw, str) else json.loads(raw)
    return value


def _raw_for(place: JsonPlace, path: str, body: Any) -> Any:
    """Return what a write to a path has for a property, or None."""
    wanted = place.body | ({"id": place.id} if isinstance(body, dict) and "id" in body else {})
    wanted |= {key: os.environ.get(variable, "") for key, variable in place.secrets.items()}
    if wanted and (not isinstance(body, dict) or any(body.get(key) != value for key, value in wanted.items())):
        return None
    if isinstance(place.set_paths, dict):
        word = next((word for word, one in place.set_paths.items() if one == path), None)
        return place.to_raw(word) if word is not None else None
    if place.set_paths:
        return place.to_raw(place.set_paths.index(path) == 1) if path in place.set_paths else None
    if path != place.write_path(False):
        return None
    if not place.set_key:
        return body
    return body.get(place.set_key) if isinstance(body, dict) else None


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that leaves early is no error here
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    owner: HttpPeer

    def do_GET(self) -> None:
        if self._is_let_in():
            path = self.owner.plain_path(self.path)
            called = self.owner.carry_out("GET", path, {}, dict(self.headers))
            self._answer(*(called or self.owner.show(path)))

    def _is_let_in(self) -> bool:
        query = parse_qs(urlsplit(self.path).query)
        is_let_in = self.owner.is_let_in(self.command, dict(self.headers), query)
        if not is_let_in:
            self._answer(401, {"error": "unauthorized"}, {"WWW-Authenticate": CHALLENGE})
        return is_let_in

    def do_DELETE(self) -> None:
        self._take("DELETE")

    def do_POST(self) -> None:
        self._take("POST")

    def do_PUT(self) -> None:
        self._take("PUT")

    def _take(self, verb: str) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if self._is_let_in():
            path = self.owner.plain_path(self.path)
            called = self.owner.carry_out(verb, path, body, dict(self.headers))
            self._answer(*(called or self.owner.take(verb, path, body)))

    def _answer(self, status: int, answer: Any, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        faults = self.owner.world.faults
        time.sleep(faults.delay_s)
        self.owner.wait_while_mute()
        raw = b"\xff\xfe not HTTP at all \r\n\r\n" if faults.garbled else json.dumps(answer).encode()
        try:
            if not faults.garbled:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                for name, text in headers.items():
                    self.send_header(name, text)
                self.end_headers()
            self.wfile.write(raw)
        except OSError:
            pass  # the client did not wait

    def log_message(self, *_: Any) -> None:
        """Say nothing on stderr."""
