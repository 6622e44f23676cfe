"""Home Assistant by its URL: its states over the REST API, and its registries over the WebSocket API.

In: the address; a long-lived access token from the environment. Out: one object as `import_home_assistant` takes it.
Source: Home Assistant, "REST API" (`/api/states`), "WebSocket API" (authentication phase, command phase), and
`config/floor_registry/list` and its like in homeassistant/components/config.

Does not guard against: a server that only says that it is Home Assistant, unless the URL is https.
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from devices.errors import UnavailableError, UsageError
from devices.exchange.imports.home_assistant import TOKEN_ENV
from devices.no_redirect import NoRedirect
from devices.site.describe import plain_text

if TYPE_CHECKING:
    from websockets.sync.connection import Connection

ANSWER_S = 10.0
MAX_ANSWER_BYTES = 64 << 20  # a home of 2,000 entities has about 2 MiB of states
UNAUTHORIZED = 401
REGISTRIES = {"areas": "area", "floors": "floor", "devices": "device", "entities": "entity"}
OPTIONAL = {"floors"}  # Home Assistant has them since 2024.4
NEW_TOKEN = "make a long-lived access token in Home Assistant: your profile, Security"  # noqa: S105 - a hint


def fetch_home(url: str, timeout_s: float = ANSWER_S) -> dict[str, Any]:
    """Return a home's states and its registries of areas, floors, devices and entities.

    Args:
        url: as in a browser, `http://192.0.2.8:8123`.
        timeout_s: of each answer.

    Raises:
        UsageError: the URL is none; or there is no token in the environment, or it is not taken.
        UnavailableError: nobody answers there, or something that is not Home Assistant, or the connection was cut.
    """
    base, token = require_url(url), os.environ.get(TOKEN_ENV, "").strip()
    if not re.fullmatch(r"[!-~]+", token):
        what = "is no token" if token else "is not in the environment"
        raise UsageError(f"{TOKEN_ENV} {what}", hint=f"{NEW_TOKEN}, then export {TOKEN_ENV}=…")
    states = _states(base, token, timeout_s)
    return {"states": states, **_registries(base, token, timeout_s)}


def require_url(url: str) -> str:
    """Return a URL without its last slash. Raises UsageError if it is no address of a server."""
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_one = False
    if not is_one or parts.username or parts.query or parts.fragment or re.search(r"\s", url):
        raise UsageError(f"{plain_text(url)} is no address of Home Assistant", hint="as http://192.0.2.8:8123")
    return url.rstrip("/")


def _states(base: str, token: str, timeout_s: float) -> list[Any]:
    where = f"{base}/api/states"
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    request = urllib.request.Request(where, headers=headers)  # noqa: S310 - require_url takes http and https only
    # no proxy and no redirect: the token goes where the person said, and nowhere else
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect())
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            raw = answer.read(MAX_ANSWER_BYTES + 1)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == UNAUTHORIZED:
            raise UsageError(f"{base} does not take the token", hint=NEW_TOKEN) from error
        raise UnavailableError(f"no Home Assistant at {base}: {where} answered {error.code}") from error
    except OSError as error:
        raise UnavailableError(f"no Home Assistant at {base}: {getattr(error, 'reason', error)}") from error
    except Exception as error:  # http.client has its own family for garbled and for cut answers
        raise UnavailableError(f"no Home Assistant at {base}: {type(error).__name__}") from error
    if len(raw) > MAX_ANSWER_BYTES:
        raise UnavailableError(f"{where} answered more than {MAX_ANSWER_BYTES} bytes")
    try:
        states = json.loads(raw)
    except ValueError as error:
        raise UnavailableError(f"no Home Assistant at {base}: {where} answered no JSON") from error
    if not isinstance(states, list):
        raise UnavailableError(f"no Home Assistant at {base}: {where} answered no list")
    return states


def _registries(base: str, token: str, timeout_s: float) -> dict[str, Any]:
    try:
        from websockets.exceptions import ConnectionClosed, WebSocketException
        from websockets.sync.client import connect
    except ModuleNotFoundError as error:
        raise UsageError(
            "Home Assistant's registries need the package websockets", hint="pip install websockets"
        ) from error
    where = f"ws{base.removeprefix('http')}/api/websocket"
    try:
        with connect(
            where, proxy=None, open_timeout=timeout_s, close_timeout=1, max_size=MAX_ANSWER_BYTES
        ) as connection:
            _log_in(connection, base, token, timeout_s)
            return {
                key: _listed(connection, number, f"config/{name}_registry/list", key in OPTIONAL, timeout_s)
                for number, (key, name) in enumerate(REGISTRIES.items(), 1)
            }
    except TimeoutError as error:
        raise UnavailableError(f"no answer from {where} within {timeout_s:g} s") from error
    except ConnectionClosed as error:
        raise UnavailableError(f"{where}: the connection was cut", hint="is Home Assistant restarting?") from error
    except (OSError, WebSocketException) as error:
        raise UnavailableError(f"no WebSocket API at {where}: {plain_text(str(error))}") from error


def _log_in(connection: Connection, base: str, token: str, timeout_s: float) -> None:
    if (said := _message(connection, timeout_s).get("type")) != "auth_required":
        raise UnavailableError(f"no Home Assistant at {base}: it began with {plain_text(str(said))}")
    connection.send(json.dumps({"type": "auth", "access_token": token}))
    if _message(connection, timeout_s).get("type") != "auth_ok":
        raise UsageError(f"{base} does not take the token", hint=NEW_TOKEN)


def _listed(connection: Connection, number: int, command: str, is_optional: bool, timeout_s: float) -> Any:
    connection.send(json.dumps({"id": number, "type": command}))
    answer = _message(connection, timeout_s)
    while answer.get("id") != number or answer.get("type") != "result":
        answer = _message(connection, timeout_s)
    if answer.get("success") is True:
        return answer.get("result")
    problem = answer.get("error")
    code, told = (problem.get("code"), problem.get("message")) if isinstance(problem, dict) else (None, None)
    if is_optional and code == "unknown_command":
        return []
    raise UnavailableError(f"Home Assistant refused {command}: {plain_text(str(told or code))}")


def _message(connection: Connection, timeout_s: float) -> dict[str, Any]:
    try:
        message = json.loads(connection.recv(timeout=timeout_s))
    except ValueError as error:
        raise UnavailableError("Home Assistant's WebSocket API said no JSON") from error
    return message if isinstance(message, dict) else {}
