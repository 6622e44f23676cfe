"""The box's own API, which its page uses: sessions, commands, confirmations, stop, news, journal and health."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from devices.errors import EdgeError, UsageError
from devices.site.tools import Command
from devices.yaml_file import first_problem
from edge_agent.serving.door import in_thread, stop_now
from edge_agent.serving.http.connected import while_connected
from edge_agent.serving.http.openai_routes import client_of, failure, json_body
from edge_agent.serving.http.site_description import describe_site
from edge_agent.serving.hub import Hub, plain_event
from edge_agent.serving.session import Session, Turn

MOST_TEXT, MOST_EVENTS, MOST_LISTENERS = 4000, 500, 64


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Ask(_Body):
    text: str = Field(min_length=1, max_length=MOST_TEXT)


class _Command(_Body):
    device: str = Field(max_length=100)
    action: str = Field(max_length=100)
    input: dict[str, Any] = Field(default_factory=dict)


class _Confirm(_Body):
    id: str = Field(max_length=100)
    yes: bool


Body = TypeVar("Body", bound=_Body)
Handler = Callable[[Request], Awaitable[Response]]


class AgentRoutes:
    """The routes of one box; news end when the door is closing."""

    def __init__(self, hub: Hub, closing: asyncio.Event) -> None:
        self._hub, self._closing = hub, closing

    @property
    def routes(self) -> list[Route]:
        """What the HTTP door serves."""
        paths: list[tuple[str, str, Handler]] = [
            ("GET", "/api/site", self.site),
            ("GET", "/api/state", self.state),
            ("POST", "/api/sessions", self.open_session),
            ("POST", "/api/sessions/{session}/ask", self.ask),
            ("POST", "/api/sessions/{session}/command", self.command),
            ("POST", "/api/sessions/{session}/confirm", self.confirm),
            ("POST", "/api/stop", self.stop),
            ("GET", "/api/events", self.events),
            ("GET", "/api/journal", self.journal),
            ("GET", "/api/why/{command:int}", self.why),
            ("GET", "/api/health", self.health),
        ]
        return [Route(path, _explained(handler), methods=[method]) for method, path, handler in paths]

    async def site(self, _: Request) -> Response:
        """Describe the site."""
        hub = self._hub
        about = {"model": hub.name, "is_live": hub.is_live, "mode": hub.runtime.broker.mode}
        return JSONResponse(describe_site(hub.site) | about | {"clock": hub.runtime.clock_text})

    async def state(self, _: Request) -> Response:
        """Tell every property that can be read."""
        state = await in_thread(self._hub.state)
        return JSONResponse({"state": state, "clock": self._hub.runtime.clock_text})

    async def open_session(self, request: Request) -> Response:
        """Open a conversation."""
        return JSONResponse({"session": self._hub.open_session(client_of(request)).id}, 201)

    async def ask(self, request: Request) -> Response:
        """Work a request in words."""
        session, body = self._session(request), await _read(request, _Ask)
        return _told(await while_connected(request, partial(session.ask, body.text)))

    async def command(self, request: Request) -> Response:
        """Carry out a command, as a switch does."""
        session, body = self._session(request), await _read(request, _Command)
        command = Command(body.device, body.action, body.input)
        return _told(await while_connected(request, partial(session.command, command)))

    async def confirm(self, request: Request) -> Response:
        """Give a yes or a no to what waits for it."""
        session, body = self._session(request), await _read(request, _Confirm)
        return _told(await in_thread(partial(session.confirm, body.id, is_yes=body.yes)))

    async def stop(self, _: Request) -> Response:
        """Stop everything, past the model and whatever waits."""
        return JSONResponse({"problems": await stop_now(self._hub)})

    async def events(self, _: Request) -> Response:
        """Stream news, the state first."""
        if self._hub.feed.listeners >= MOST_LISTENERS:
            raise UsageError("too many listen already")
        return EventSourceResponse(self._news(), ping=15)

    async def _news(self) -> AsyncIterator[dict[str, str]]:
        with self._hub.feed.listening() as listener:
            state = {"state": await in_thread(self._hub.state), "clock": self._hub.runtime.clock_text}
            yield {"event": "state", "data": json.dumps(state)}
            async for news in listener.until(self._closing):
                yield {"event": news.kind, "data": json.dumps(news.body)}

    async def journal(self, request: Request) -> Response:
        """Tell the journal's last entries."""
        text = request.query_params.get("count", "50")
        if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= MOST_EVENTS:
            raise UsageError(f"count is 1 to {MOST_EVENTS}")
        events = await in_thread(partial(self._hub.events, int(text)))
        return JSONResponse({"events": [plain_event(one) for one in events]})

    async def why(self, request: Request) -> Response:
        """Tell what a command rested on."""
        return JSONResponse({"text": await in_thread(partial(self._hub.why, request.path_params["command"]))})

    async def health(self, _: Request) -> Response:
        """Tell how the box is."""
        return JSONResponse(await in_thread(self._hub.health))

    def _session(self, request: Request) -> Session:
        return self._hub.session(request.path_params["session"])


async def _read(request: Request, model: type[Body]) -> Body:
    plain = await json_body(request)
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        location, message, hint = first_problem(error, model)
        raise UsageError(f"{'.'.join(map(str, location))}: {message}", hint=hint) from error


def _told(turn: Turn) -> Response:
    return JSONResponse(turn.to_json())


def _explained(handler: Handler) -> Handler:
    async def explained(request: Request) -> Response:
        try:
            return await handler(request)
        except EdgeError as error:
            return failure(error)

    return explained
