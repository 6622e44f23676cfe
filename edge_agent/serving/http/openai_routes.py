"""OpenAI's API: /v1/models and /v1/chat/completions, with two models.

NAME is the model alone: a client's own tools, whose calls are returned and never carried out. NAME:agent is the box's
agent: it acts through the broker, and what it did stands in the field `edgewright` of its answer.

OpenAI's API knows no conversations: a client sends all of one each time. An agent's conversation is found again by the
`session` that its last answer named (in `edgewright`), or else by client and by every word that was said in it, and
goes on there. So a yes in words counts only for who was asked.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from devices.errors import EdgeError, RefusedError, UsageError
from edge_agent.engine.engine import ContextFull
from edge_agent.serving.door import for_client
from edge_agent.serving.engine_queue import Busy, Cancelled
from edge_agent.serving.http.chat_reply import ChatReply, usage_of
from edge_agent.serving.http.chat_request import BadRequest, ChatBody, ChatRequest, chat_request, read_body
from edge_agent.serving.http.connected import or_gone, while_connected
from edge_agent.serving.hub import Hub
from edge_agent.serving.session import Session, Turn

AGENT = ":agent"
MOST_REMEMBERED = 1024  # conversations of agents, by what was said in them
GONE = 499  # nginx's: the client closed the request


class OpenAiRoutes:
    """The routes of one box."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._conversations: OrderedDict[tuple[str, ...], str] = OrderedDict()  # client and words, to session

    @property
    def routes(self) -> list[Route]:
        """What the HTTP door serves."""
        return [
            Route("/v1/models", self.models),
            Route("/v1/models/{model:path}", self.model),
            Route("/v1/chat/completions", self.complete, methods=["POST"]),
        ]

    async def models(self, _: Request) -> Response:
        """List both models."""
        return JSONResponse({"object": "list", "data": [self._plain_model(one) for one in self._names]})

    async def model(self, request: Request) -> Response:
        """Show one model."""
        name = request.path_params["model"]
        return JSONResponse(self._plain_model(name)) if name in self._names else self._no_model(name)

    async def complete(self, request: Request) -> Response:
        """Answer a conversation."""
        try:
            body = read_body(await json_body(request))
            if body.model not in self._names:
                return self._no_model(body.model)
            client = client_of(request)
            if body.model.endswith(AGENT):
                return await self._agent(request, body, client)
            asked = chat_request(body, self._hub.simulation.template)
            if body.stream:
                return await self._streamed(request, body, asked, client)
            completion = await while_connected(request, partial(self._hub.queue.generate, asked.request, client))
            return JSONResponse(ChatReply(asked, body.model).whole(completion))
        except EdgeError as error:
            return failure(error)

    async def _streamed(self, request: Request, body: ChatBody, asked: ChatRequest, client: str) -> Response:
        reply, events, loop = ChatReply(asked, body.model), asyncio.Queue[Any](), asyncio.get_running_loop()

        def on_text(text: str) -> None:
            for delta in reply.more(text):
                loop.call_soon_threadsafe(events.put_nowait, delta)
            if reply.has_stopped:
                self._hub.queue.engine.cancel()

        generate = partial(self._hub.queue.generate, asked.request, client, on_text=on_text)
        task = asyncio.create_task(for_client(generate))
        task.add_done_callback(lambda _: events.put_nowait(None))
        try:
            first = await or_gone(request, events.get())
        except BaseException:
            task.cancel()
            raise
        if first is None and not task.cancelled() and (error := task.exception()):
            raise error  # before anything was sent, as a status

        async def chunks() -> AsyncIterator[str]:
            try:
                yield json.dumps(reply.chunk({"role": "assistant", "content": ""}))
                delta = first
                while delta is not None:
                    yield json.dumps(reply.chunk(delta))
                    delta = await events.get()
                completion = task.result()
                last, message = reply.end(completion)
                for one in last:
                    yield json.dumps(reply.chunk(one))
                yield json.dumps(
                    reply.chunk({}, reply.finish_reason(completion, message)) | reply.more_facts(completion)
                )
                if body.stream_options and body.stream_options.include_usage:
                    yield json.dumps(reply.usage_chunk([completion]))
            except EdgeError as error:
                yield json.dumps(plain_failure(error))
            finally:
                task.cancel()
            yield "[DONE]"

        return EventSourceResponse(chunks(), ping=15)

    async def _agent(self, request: Request, body: ChatBody, client: str) -> Response:
        given = [name for name in ("tools", "tool_choice", "response_format", "stop") if getattr(body, name)]
        if given:
            raise BadRequest(f"{given[0]}: {body.model} has the box's own tools", given[0])
        session, said = self._session_of(body, client)
        turn = await while_connected(request, partial(session.ask, said[-1]))
        self._remember(session, (client, *said, turn.answer))
        plain = self._agent_reply(body, session, turn)
        if not body.stream:
            return JSONResponse(plain)
        return EventSourceResponse(self._agent_chunks(body, plain, turn), ping=15)

    def _session_of(self, body: ChatBody, client: str) -> tuple[Session, list[str]]:
        """Return the conversation that a request belongs to, and what was said in it, the request last."""
        said = [one.text for one in body.messages if one.role in {"user", "assistant"}]
        if not said or body.messages[-1].role != "user":
            raise BadRequest("the last message is of a user", "messages")
        if body.session:
            session = self._hub.session(body.session)
            if session.client != client:
                raise RefusedError("this session is another client's")
            return session, said
        known = self._conversations.pop((client, *said[:-1]), "") if len(said) > 1 else ""
        try:
            return self._hub.session(known), said
        except UsageError:  # a new one, or it was dropped meanwhile
            return self._hub.open_session(client), said

    def _remember(self, session: Session, key: tuple[str, ...]) -> None:
        self._conversations[key] = session.id
        if len(self._conversations) > MOST_REMEMBERED:
            self._conversations.popitem(last=False)

    def _agent_reply(self, body: ChatBody, session: Session, turn: Turn) -> dict[str, Any]:
        message = {"role": "assistant", "content": turn.answer}
        return {
            "id": f"chatcmpl-{session.id}-{time.monotonic_ns()}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body.model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
            "usage": usage_of(turn.completions),
            "edgewright": turn.to_json() | {"session": session.id, "notes": body.notes},
        }

    async def _agent_chunks(self, body: ChatBody, plain: dict[str, Any], turn: Turn) -> AsyncIterator[str]:
        head = {name: plain[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
        delta = {"role": "assistant", "content": turn.answer}
        yield json.dumps(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "edgewright": plain["edgewright"]}
        yield json.dumps(head | end)
        if body.stream_options and body.stream_options.include_usage:
            yield json.dumps(head | {"choices": [], "usage": plain["usage"]})
        yield "[DONE]"

    @property
    def _names(self) -> tuple[str, str]:
        return self._hub.name, f"{self._hub.name}{AGENT}"

    def _plain_model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": int(self._hub.started_s), "owned_by": "edgewright"}

    def _no_model(self, name: str) -> Response:
        known = " and ".join(self._names)
        body = {"message": f"there is no model {name!r}, only {known}", "type": "invalid_request_error"}
        return JSONResponse({"error": body | {"param": "model", "code": "model_not_found"}}, 404)


def client_of(request: Request) -> str:
    """Return who a request is of, as far as a connection tells: its address and what it calls itself."""
    return f"{request.client.host if request.client else ''} {request.headers.get('user-agent', '')[:80]}"


async def json_body(request: Request) -> Any:
    """Return a request's body, read as JSON. Raises BadRequest if it is none."""
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is not JSON") from error


STATUSES: tuple[tuple[type[EdgeError], int, str, str | None], ...] = (
    (BadRequest, 400, "invalid_request_error", None),
    (ContextFull, 400, "invalid_request_error", "context_length_exceeded"),
    (Cancelled, GONE, "api_error", "cancelled"),
    (Busy, 429, "rate_limit_error", "busy"),
    (UsageError, 400, "invalid_request_error", None),
    (RefusedError, 403, "permission_error", "refused"),
)


def plain_failure(error: EdgeError) -> dict[str, Any]:
    """Return an error's body, in OpenAI's form, with our hint."""
    _, kind, code = _row_of(error)
    body = {"message": str(error), "type": kind, "param": getattr(error, "param", "") or None, "code": code}
    return {"error": body | {"hint": error.hint}}


def failure(error: EdgeError) -> Response:
    """Return an error as an answer."""
    return JSONResponse(plain_failure(error), _row_of(error)[0])


def _row_of(error: EdgeError) -> tuple[int, str, str | None]:
    for kind, status, name, code in STATUSES:
        if isinstance(error, kind):
            return status, name, code
    return 503, "api_error", "unavailable"
