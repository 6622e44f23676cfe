"""HTTP with JSON: Shelly devices of the second generation on (RPC), and anything that shows and takes JSON.

Under `drivers` of a site file: `shelly: {type: http, url: http://192.168.1.30}`. Under a device, for each property,
either a Shelly component, `at: {on: {rpc: Switch, id: 0, key: output, set_key: on}}`, or paths,
`at: {speed: {path: /fan, key: state.speed, set_path: /fan, set_key: speed}}`. Under an action with output,
`at: {path: "/orders/{order}/refunds", verb: POST, send: {euros: amount}, key_header: Idempotency-Key}`. Under a tool of
a toolset it is the same: all its arguments are sent, and its result is the whole answer.
A Shelly with a password has `auth: {scheme: digest, user: admin, secret_env: SHELLY_PASSWORD}` under its driver.
Source: Shelly Gen2 Device API, "RPC over HTTP", "Authentication" and the components.

Does not guard against: a peer that is not who it says it is, unless the url is https.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from devices.driver import (
    Binding,
    CallRefused,
    DeviceUnavailable,
    DriverType,
    Needs,
    Reading,
    peer_of,
    read_secret,
    reading_of,
    secret_from,
)
from devices.drivers.http.digest import authorization
from devices.drivers.json_values import JsonValue, Moving, Scalar, Secrets
from devices.no_redirect import NoRedirect
from devices.site.action import Action
from devices.site.functions import FunctionAction
from devices.site.schema import Value
from devices.yaml_file import Strict

MAX_ANSWER_BYTES = 1 << 20
COVER = Moving(key="state", values=("opening", "closing", "calibrating"), time_key="move_timeout")
UNAUTHORIZED = 401
JSON_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
NOT_FOUND, REFUSALS = 404, range(400, 500)  # RFC 9110: the server has understood, and done nothing


class HttpAuth(Strict):
    """How to log in, with a secret from the environment, so that none stands in a site file.

    Attributes:
        scheme: as in a W3C Thing Description; digest is with SHA-256 or MD5, as the server wants.
        secret_env: the variable that holds the password, token or key.
        user: of the schemes basic and digest.
        place: of the scheme apikey: where the key goes.
        name: of the scheme apikey: of the header or of the query's parameter.
    """

    scheme: Literal["basic", "bearer", "apikey", "digest"]
    secret_env: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    user: str = ""
    place: Literal["header", "query"] = "header"
    name: str = Field(default="X-API-Key", pattern=r"^[A-Za-z0-9_.-]+$")

    @model_validator(mode="after")
    def _require_user(self) -> HttpAuth:
        if self.scheme == "digest" and not self.user:
            raise ValueError("digest needs a user; a Shelly's is admin")
        return self


class HttpSettings(Strict):
    """Where the server is; `token_file` holds a bearer token, so that no secret stands in a site file."""

    type: Literal["http"]
    url: str = Field(pattern=r"^https?://[^/\s]+[^\s]*$")
    token_file: str = ""
    auth: HttpAuth | None = None
    timeout_s: float = Field(default=2.0, gt=0)


class JsonPlace(JsonValue):
    """Where one property is read and written; without `key` or `set_key` the whole of the JSON is the value.

    A device that mostly sleeps has `is_asked: false`: when it does not answer, what it said last is its state, and as
    old as it is, so that no interlock takes it for fresh.

    Where a server has a path for each of off and on, `set_paths` has them in this order; `body` is sent with each
    write. As Home Assistant has it: `set_paths: [/api/services/switch/turn_off, /api/services/switch/turn_on]`,
    `body: {entity_id: switch.fan}`. A property of words has a path for each that is written,
    `set_paths: {cleaning: /api/services/vacuum/start}`. `secrets` are sent with each write, too, under their keys, and
    are named by their variable in the environment: `secrets: {code: ALARM_CODE}`.
    """

    rpc: Literal[
        "", "Switch", "Light", "CCT", "RGB", "RGBW", "Cover", "Input", "Temperature", "Humidity", "Illuminance",
        "Smoke", "Flood", "DevicePower", "Voltmeter", "PM1", "EM", "EM1",
    ] = ""  # fmt: skip
    id: int = Field(default=0, ge=0)
    path: str = Field(default="", pattern=r"^(/\S*)?$")
    set_path: str = Field(default="", pattern=r"^(/\S*)?$")
    set_method: str = "Set"
    set_key: str = ""
    set_paths: Annotated[tuple[str, str], Field(strict=False)] | dict[str, str] | None = None
    secrets: Secrets = Field(default_factory=dict)
    body: dict[str, Scalar] = Field(default_factory=dict)
    verb: Literal["POST", "PUT"] = "POST"
    is_asked: bool = True

    @model_validator(mode="after")
    def _require_one_way(self) -> JsonPlace:
        if bool(self.rpc) == bool(self.path):
            raise ValueError("needs either rpc, a Shelly component, or path")
        if self.rpc and not self.key:
            raise ValueError("rpc needs key")
        return self

    def moving_s(self, answer: Any) -> float | None:
        """Return how long the device may still be on its way, as `Moving.time_left_s`; a cover says it by itself."""
        moving = self.moving or (COVER if self.rpc == "Cover" else None)
        return moving.time_left_s(answer) if moving else None

    def why_none(self, answer: Any) -> str:
        """Return what keeps the device from having a value, as what it is, or ""."""
        if self.rpc != "Cover" or not self.key.endswith("_pos") or not isinstance(answer, dict):
            return ""
        has_place = answer.get("pos_control", True) and answer.get(self.key) is not None
        return "" if has_place else "not calibrated"

    @property
    def read_path(self) -> str:
        """Where to read, with query."""
        return f"/rpc/{self.rpc}.GetStatus?id={self.id}" if self.rpc else self.path

    def write_path(self, value: Value) -> str:
        """Return where to write a value."""
        if isinstance(self.set_paths, dict):
            if str(value) not in self.set_paths:
                raise DeviceUnavailable(f"set_paths has none for {value}")
            return self.set_paths[str(value)]
        if self.set_paths:
            return self.set_paths[bool(value)]
        return f"/rpc/{self.rpc}.{self.set_method}" if self.rpc else self.set_path


class JsonCall(Strict):
    """Where an action with output is carried out.

    Attributes:
        path: with arguments in braces, which are required ones.
        verb: how.
        body: what goes along.
        query: arguments that go into the query under their own names, whatever the verb.
        send: the key in the body for an argument; "" for one that is the whole body.
        keys: where in the answer a value of the output is, unless it is under its own name.
        key_header: takes the command's own key, so that the server knows a repetition.
        is_unkeyed: the server knows no such key. What changes something is sent once all the same; if no answer comes,
            it is not known whether it was done.
    """

    path: str = Field(pattern=r"^/\S*$")
    verb: Literal["GET", "POST", "PUT", "DELETE"] = "GET"
    body: dict[str, Scalar] = Field(default_factory=dict)
    query: tuple[str, ...] = Field(default=(), strict=False)
    send: dict[str, str] = Field(default_factory=dict)
    keys: dict[str, JsonValue] = Field(default_factory=dict)
    key_header: str = Field(default="", pattern=r"^[A-Za-z0-9-]*$")
    is_unkeyed: bool = False

    def problem_with(self, action: Action) -> str:
        """Return why the address does not fit its action, or ""."""
        if isinstance(action, FunctionAction):
            required = action.parameters.get("required", [])
            if optional := [name for name in re.findall(r"{(\w+)}", self.path) if name not in required]:
                return f"has {{{optional[0]}}} in its path, which is not required of every call"
            if self.keys:
                return "has keys, which go with an output: a function answers with the whole of the JSON"
        elif unsent := [name for name in action.input if name not in self.send and not self._is_in_url(name)]:
            return f"sends {unsent[0]} neither in its path nor in its body"
        known = {*action.output, *action.words}
        if strange := [name for name in self.keys if name not in known]:
            return f"has no output {strange[0]}"
        if action.risk != "none" and not self.key_header and not self.is_unkeyed:
            return "changes something, so that it needs key_header, or is_unkeyed if the server knows none"
        return ""

    def place_of(self, name: str) -> JsonValue:
        """Return where in the answer a value is."""
        return self.keys.get(name) or JsonValue(key=name)

    def request(self, arguments: Mapping[str, Any], *, sends_rest: bool) -> tuple[str, Any]:
        """Return path and body for arguments.

        `sends_rest` says that those with no place of their own go under their own names: with GET into the query.
        """
        named = {name: sent for name, sent in self.send.items() if name in arguments}
        if sends_rest:
            named |= {name: name for name in arguments if name not in self.send and not self._is_in_url(name)}
        body: dict[str, Any] = self.body | {sent: arguments[name] for name, sent in named.items()}
        query = {name: arguments[name] for name in self.query if name in arguments}
        if sends_rest and self.verb == "GET":
            query |= body
        path = self.url_path(arguments)
        if query:
            plain = {name: json.dumps(one) if isinstance(one, bool) else one for name, one in query.items()}
            path += ("&" if "?" in path else "?") + urllib.parse.urlencode(plain, doseq=True)
        return path, body.get("", body)

    def _is_in_url(self, name: str) -> bool:
        return name in self.query or f"{{{name}}}" in self.path

    def url_path(self, arguments: Mapping[str, Value]) -> str:
        """Return the path for arguments, which cannot become parts of it."""
        quoted = {name: urllib.parse.quote(str(value), safe="") for name, value in arguments.items()}
        return self.path.format(**quoted)


class _NotFound(CallRefused):
    pass


class HttpDriver:
    """One server. Every request has its own connection; safe to use from several threads."""

    def __init__(self, settings: HttpSettings, bindings: Mapping[str, Binding], clock: Callable[[], float]) -> None:
        self._settings, self._bindings, self._clock = settings, bindings, clock
        self._last: dict[str, tuple[Any, float]] = {}  # what devices that sleep said, by path
        # no proxy and no redirect: a device is asked where the site file says, and nowhere else
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect())

    def read(self, device: str) -> dict[str, Reading]:
        """Return every property of a device; what does not fit its schema is marked bad."""
        binding = self._bindings[device]
        answers: dict[str, tuple[Any, float]] = {}
        found: dict[str, Reading] = {}
        for name, place in binding.at.items():
            if place.read_path not in answers:
                answers[place.read_path] = self._answer(device, place)
            (answer, time_s), schema = answers[place.read_path], binding.device.properties[name]
            if why := place.why_none(answer):
                found[name] = Reading("", time_s, "unavailable", why, place.moving_s(answer))
            else:
                reading = reading_of(partial(place.to_value, answer, schema), schema, time_s)
                found[name] = replace(reading, moving_s=place.moving_s(answer))
        return found

    def _answer(self, device: str, place: JsonPlace) -> tuple[Any, float]:
        """Return what is where a property is read, and since when it is known."""
        try:
            answer = self._ask(device, place.read_path), self._clock()
        except DeviceUnavailable:
            if place.is_asked or place.read_path not in self._last:
                raise
            return self._last[place.read_path]
        if not place.is_asked:
            self._last[place.read_path] = answer
        return answer

    def write(self, device: str, values: dict[str, Value]) -> None:
        """Set properties of a device; those that one request can hold go together."""
        binding = self._bindings[device]
        requests: dict[tuple[str, str, int, str], Any] = {}
        for name, value in values.items():
            place = binding.at[name]
            request = place.verb, place.write_path(value), place.id, json.dumps(place.body)
            if place.set_key or place.set_paths or place.body or place.secrets:
                body = requests.setdefault(request, {**place.body, **({"id": place.id} if place.rpc else {})})
                body |= {key: secret_from(device, variable) for key, variable in place.secrets.items()}
                if place.set_key:
                    body[place.set_key] = place.to_raw(value)
            else:
                requests[request] = place.to_raw(value)
        for (verb, path, *_), body in requests.items():
            self._ask(device, path, verb, body)

    def call(self, device: str, action: str, arguments: Mapping[str, Value], key: str) -> dict[str, Any] | None:
        """Carry an action with output out; 404 is None, and any other refusal by the server is CallRefused."""
        binding = self._bindings[device]
        place, plain = binding.calls[action], binding.device.actions[action]
        headers = {place.key_header: key} if place.key_header else {}
        is_function = isinstance(plain, FunctionAction)
        path, body = place.request(arguments, sends_rest=is_function)
        try:
            answer = self._ask(device, path, place.verb, body, headers, is_answered=is_function)
        except _NotFound:
            if is_function:
                raise
            return None
        if is_function:
            return answer
        found: dict[str, Any] = {}
        for name, schema in plain.output.items():
            try:
                found[name] = place.place_of(name).to_value(answer, schema)
            except ValueError as error:
                raise DeviceUnavailable(f"{device}: {error}") from error
        for name in plain.words:
            where = place.place_of(name)
            found[name] = where.find(answer) if where.is_in(answer) else ""
        return found

    def close(self) -> None:
        """Nothing is kept open."""
        self._opener.close()

    def _ask(
        self,
        device: str,
        path: str,
        verb: str = "GET",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        is_answered: bool = False,
    ) -> Any:
        """Send one request, once. Raises CallRefused if the server refused it, else DeviceUnavailable."""
        url = urllib.parse.urljoin(self._settings.url, path)
        headers = {**JSON_HEADERS, **self._authorization(device), **(headers or {})}
        data = None if verb == "GET" else json.dumps(body).encode()
        keyed = url + self._key_query(device, url)  # not in messages, which the journal keeps
        request = urllib.request.Request(keyed, data, headers, method=verb)  # noqa: S310 - HttpSettings takes http and https only
        try:
            raw = self._sent(device, request)
        except urllib.error.HTTPError as error:
            error.close()
            refusal = _NotFound if error.code == NOT_FOUND else CallRefused
            kind = refusal if error.code in REFUSALS else DeviceUnavailable
            why = ": `auth` of its driver has no password that it takes" if error.code == UNAUTHORIZED else ""
            raise kind(f"{device}: {url} answered {error.code}{why}") from error
        except OSError as error:
            raise DeviceUnavailable(f"{device}: no answer from {url}: {getattr(error, 'reason', error)}") from error
        except Exception as error:  # http.client has its own family for garbled answers
            raise DeviceUnavailable(f"{device}: {url} answered nonsense: {type(error).__name__}") from error
        if len(raw) > MAX_ANSWER_BYTES:
            raise DeviceUnavailable(f"{device}: {url} answered more than {MAX_ANSWER_BYTES} bytes")
        try:
            return json.loads(raw) if raw or verb == "GET" else None
        except ValueError as error:
            if verb != "GET" and not is_answered:
                return None  # what a write answers is not looked at; the read-back is
            raise DeviceUnavailable(f"{device}: {url} answered no JSON") from error

    def _sent(self, device: str, request: urllib.request.Request) -> bytes:
        """Return the raw answer to a request; one that is refused with a challenge is sent once more, with its answer.

        What was refused so has done nothing, so that this repeats nothing.
        """
        auth = self._settings.auth
        try:
            return self._opened(request)
        except urllib.error.HTTPError as error:
            challenges = error.headers.get_all("WWW-Authenticate") or []
            if error.code != UNAUTHORIZED or auth is None or auth.scheme != "digest" or not challenges:
                raise
            error.close()
            asked = request.get_method(), request.selector, auth.user, secret_from(device, auth.secret_env)
            try:
                request.add_header("Authorization", authorization(challenges, *asked))
            except ValueError as problem:
                raise DeviceUnavailable(f"{device}: {self._settings.url}: {problem}") from error
        return self._opened(request)

    def _opened(self, request: urllib.request.Request) -> bytes:
        with self._opener.open(request, timeout=self._settings.timeout_s) as answer:
            return bytes(answer.read(MAX_ANSWER_BYTES + 1))

    def _key_query(self, device: str, url: str) -> str:
        auth = self._settings.auth
        if auth is None or auth.scheme != "apikey" or auth.place != "query":
            return ""
        query = urllib.parse.urlencode({auth.name: secret_from(device, auth.secret_env)})
        return f"{'&' if '?' in url else '?'}{query}"

    def _authorization(self, device: str) -> dict[str, str]:
        if auth := self._settings.auth:
            secret = secret_from(device, auth.secret_env)
            if auth.scheme == "basic":
                return {"Authorization": f"Basic {base64.b64encode(f'{auth.user}:{secret}'.encode()).decode()}"}
            if auth.scheme == "bearer":
                return {"Authorization": f"Bearer {secret}"}
            return {auth.name: secret} if auth.scheme == "apikey" and auth.place == "header" else {}
        if not self._settings.token_file:
            return {}
        return {"Authorization": f"Bearer {read_secret(device, self._settings.token_file)}"}


def _problem_with(_: HttpSettings, place: JsonPlace, is_written: bool) -> str:
    is_complete = place.set_key if place.rpc else place.set_path or place.set_paths
    return "cannot be written without set_path, or with rpc without set_key" if is_written and not is_complete else ""


def _needs(settings: HttpSettings) -> Needs:
    return Needs(reads=(settings.token_file,) if settings.token_file else (), peers=(peer_of(settings.url),))


DRIVER = DriverType(
    settings=HttpSettings,
    address=JsonPlace,
    open=HttpDriver,
    problem_with=_problem_with,
    call_address=JsonCall,
    call_problem_with=lambda settings, call, action: call.problem_with(action),
    needs=_needs,
)
