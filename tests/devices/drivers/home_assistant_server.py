"""Home Assistant made from its states and registries: REST and WebSocket API at one port, with a token.

It knows no site: a service does what Home Assistant documents for its domain, or answers 400.
Source: Home Assistant, "REST API", "WebSocket API", the services of its domains; RFC 6455 through websockets.
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from websockets.frames import OP_TEXT
from websockets.http11 import Request
from websockets.server import ServerProtocol

VERSION = "2026.1.0"
KEYS = {"area": "areas", "floor": "floors", "device": "devices", "entity": "entities"}
STATE_AFTER = {"turn_on": "on", "turn_off": "off", "lock": "locked", "unlock": "unlocked"}
ATTRIBUTES = {  # by domain and service: what else they take, and the attribute that then shows it
    ("light", "turn_on"): {"brightness": "brightness", "color_temp_kelvin": "color_temp_kelvin"},
    ("fan", "set_percentage"): {"percentage": "percentage"},
    ("cover", "set_cover_position"): {"position": "current_position"},
    ("climate", "set_temperature"): {"temperature": "temperature"},
}
ON_OFF = ("light", "switch", "input_boolean", "fan")
SERVICES = {("lock", "lock"), ("lock", "unlock"), *ATTRIBUTES} | {
    (domain, service) for domain in ON_OFF for service in ("turn_on", "turn_off")
}


class HomeAssistantServer:
    """One home.

    Args:
        body: `states`, and the registries `areas`, `floors`, `devices`, `entities`.
        token: which it takes.
    """

    def __init__(self, body: dict[str, Any], token: str) -> None:
        self.body: dict[str, Any] = json.loads(json.dumps(body))
        self.states: dict[str, dict[str, Any]] = {one["entity_id"]: one for one in self.body["states"]}
        self.token = token
        self.unknown: set[str] = set()  # commands that this version does not know
        self.cut_at = ""  # the command at which the connection is lost
        self.refused_services: list[str] = []
        home = self

        class Handler(_Handler):
            owner = home

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def serve(self, domain: str, service: str, data: dict[str, Any]) -> bool:
        """Do what a service does; return whether there is such a service, entity and data."""
        entity = str(data.get("entity_id"))
        attributes = ATTRIBUTES.get((domain, service), {})
        is_known = (domain, service) in SERVICES and entity in self.states and entity.startswith(f"{domain}.")
        if not is_known or data.keys() - {"entity_id"} - attributes.keys():
            self.refused_services.append(f"{domain}.{service} {data}")
            return False
        state = self.states[entity]
        state["state"] = STATE_AFTER.get(service, state["state"])
        for key, attribute in attributes.items():
            if key in data:
                state["attributes"][attribute] = data[key] if key == "temperature" else int(data[key])
        if domain == "light" and (data.get("brightness") == 0 or service == "turn_off"):
            state["state"] = "off"
            if "brightness" in state["attributes"]:
                state["attributes"]["brightness"] = None
        return True

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a command of the WebSocket API."""
        number, command = message["id"], message["type"]
        kind = command.removeprefix("config/").removesuffix("_registry/list")
        if command in self.unknown or kind not in KEYS:
            error = {"code": "unknown_command", "message": "Unknown command."}
            return {"id": number, "type": "result", "success": False, "error": error}
        return {"id": number, "type": "result", "success": True, "result": self.body.get(KEYS[kind], [])}


class _Handler(BaseHTTPRequestHandler):
    owner: HomeAssistantServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/api/websocket":
            self._talk()
        elif self.path == "/api/states":
            self._answer(200, list(self.owner.states.values()))
        else:
            state = self.owner.states.get(self.path.removeprefix("/api/states/"))
            self._answer(200 if state else 404, state or {"message": "Entity not found."})

    def do_POST(self) -> None:
        data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        *_, domain, service = self.path.split("/")
        is_let_in = self.headers["Authorization"] == f"Bearer {self.owner.token}"
        self._answer(200 if is_let_in and self.owner.serve(domain, service, data) else 400, [])

    def _answer(self, status: int, body: Any) -> None:
        if self.headers["Authorization"] != f"Bearer {self.owner.token}":
            status, body = 401, {"message": "Unauthorized"}
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _talk(self) -> None:
        """Speak the WebSocket API until the client leaves, or the connection is cut."""
        protocol, self.close_connection = ServerProtocol(), True
        lines = [self.requestline, *(f"{name}: {text}" for name, text in self.headers.items()), "", ""]
        protocol.receive_data("\r\n".join(lines).encode())
        (request,) = protocol.events_received()
        assert isinstance(request, Request)
        protocol.send_response(protocol.accept(request))
        self._send(protocol, {"type": "auth_required", "ha_version": VERSION})
        is_let_in = False
        while not protocol.close_expected() and (raw := self.connection.recv(65536)):
            protocol.receive_data(raw)
            for frame in protocol.events_received():
                if getattr(frame, "opcode", None) is not OP_TEXT:
                    continue
                message = json.loads(frame.data)  # type: ignore[union-attr]
                if is_let_in and message["type"] == self.owner.cut_at:
                    return
                if is_let_in:
                    self._send(protocol, self.owner.answer(message))
                    continue
                is_let_in = message == {"type": "auth", "access_token": self.owner.token}
                wrong = {"type": "auth_invalid", "message": "Invalid access token or password"}
                self._send(protocol, {"type": "auth_ok", "ha_version": VERSION} if is_let_in else wrong)
            for data in protocol.data_to_send():
                self.wfile.write(data)

    def _send(self, protocol: ServerProtocol, message: dict[str, Any]) -> None:
        protocol.send_text(json.dumps(message).encode())
        for data in protocol.data_to_send():
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing on stderr."""
