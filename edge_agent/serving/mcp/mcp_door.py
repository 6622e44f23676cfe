"""MCP for a served box: the site's tools, `ask`, `stop`, the state and the journal. The one server file with the SDK.

What needs a yes is put to the client's person (elicitation) in the broker's words, and never to the client's model: a
client that cannot ask is told what would need a yes, and nothing waits. Up to revision 2025-11-25 the question goes out
in the middle of a call, and an MCP session is one conversation. Revision 2026-07-28 has no sessions: a call is its own
conversation, its answer is the question, and it comes again with what the person said and a sealed state, which names
the conversation and what it waits for.

Does not guard against: a client that says yes in its person's name; who may come in (access.py does, for HTTP).

Source: Model Context Protocol 2026-07-28 and 2025-11-25, "Tools", "Elicitation"; `mcp` 2.3.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, redirect_stdout
from functools import partial
from importlib.metadata import version
from typing import Any, cast

import mcp.types as types
from mcp.server import Server, ServerRequestContext
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp.types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError
from starlette.types import ASGIApp

from devices.broker.explain import event_line
from devices.broker.policy import CONFIRMATION_S
from devices.errors import EdgeError, UsageError
from edge_agent.serving.conversations import Conversation, Conversations
from edge_agent.serving.door import for_client, in_thread, stop_now
from edge_agent.serving.engine_queue import Cancellation
from edge_agent.serving.hub import Hub
from edge_agent.serving.mcp.standard_input import read_lines
from edge_agent.serving.mcp.tool_description import MOST_TEXT, ToolDescription, ask_tool, describe_tool, stop_tool
from edge_agent.serving.session import Confirmation, Session, Turn

STATE, JOURNAL = "edgewright://state", "edgewright://journal"
MOST_ENTRIES = 50  # of the journal
MOST_BYTES = 256 * 1024  # of a message
MOST_MCP_SESSIONS, MCP_SESSION_IDLE_S = 64, 1800.0
MODERN = frozenset(MODERN_PROTOCOL_VERSIONS)  # without sessions, and without questions in the middle of a call
YES = "yes"
DONE = {"done", "dry_run"}

Context = ServerRequestContext[Conversations, Any]


class _Box:
    """What a server answers: one handler a method."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        described = {tool.name: describe_tool(hub.site, tool) for tool in hub.tools}
        self._ask, self._stop = (one if one not in described else f"edgewright_{one}" for one in ("ask", "stop"))
        described |= {self._ask: ask_tool(self._ask), self._stop: stop_tool(self._stop)}
        self.tools = {name: _tool(one) for name, one in described.items()}

    async def list_tools(self, _: Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=list(self.tools.values()))

    async def call_tool(
        self, context: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        if params.name == self._stop:
            problems = await stop_now(self._hub)
            return _result(" ".join(problems) or "Everything was stopped.", [], is_error=bool(problems))
        is_ask = params.name == self._ask
        try:
            if params.request_state is not None:
                return await self._answered(params.request_state, params.input_responses or {}, is_ask=is_ask)
            async with _conversation(context).turn() as session:
                try:
                    turn = await for_client(partial(self._work, session, _plain(params)))
                except EdgeError as error:  # nothing was left open: the conversation goes on
                    return _failure(error)
                return await self._settled(context, session, turn, is_ask=is_ask)
        except EdgeError as error:
            return _failure(error)

    def _work(self, session: Session, params: Mapping[str, Any], cancellation: Cancellation) -> Turn:
        name, arguments = params["name"], params["arguments"]
        if name != self._ask:
            return session.call(name, arguments, cancellation)
        text = arguments.get("text")
        if not isinstance(text, str) or len(arguments) != 1 or len(text) > MOST_TEXT:
            raise UsageError(f"{name} takes text, of at most {MOST_TEXT} characters")
        return session.ask(text, cancellation)

    async def _settled(
        self, context: Context, session: Session, turn: Turn, *, is_ask: bool
    ) -> types.CallToolResult | types.InputRequiredResult:
        """Return what came of a call once nothing waits for a yes any more, or the questions that its person gets."""
        asked, actions, answer = turn.confirmations, turn.to_json()["actions"], turn.answer
        if not asked:
            return _result(answer, actions, is_error=not is_ask and not _are_done(actions))
        for one in asked:
            answer = answer.replace(one.question, "")
        if not _can_ask(context):
            await _give(session, [one.id for one in asked], [False] * len(asked))
            needs = " ".join(map(_question_text, asked))
            text = f"{answer} Not done, because this client cannot ask its person for the yes that it needs: {needs}"
            return _result(text, actions, is_error=True)
        told = (answer, [one for one in actions if one["status"] != "needs_confirmation"])
        if context.protocol_version in MODERN:
            state = {"session": session.id, "ids": [one.id for one in asked], "told": told}
            questions: types.InputRequests = {str(number): _question(one) for number, one in enumerate(asked)}
            return types.InputRequiredResult(input_requests=questions, request_state=json.dumps(state))
        given = [await _answer_to(context, one) for one in asked]
        return _told(told, await _give(session, [one.id for one in asked], given), is_ask=is_ask)

    async def _answered(self, state: str, responses: types.InputResponses, *, is_ask: bool) -> types.CallToolResult:
        """Return what came of a call that comes again with its person's answers; its state was sealed here."""
        waiting = json.loads(state)
        given = [_is_yes(responses.get(str(number))) for number in range(len(waiting["ids"]))]
        turns = await _give(self._hub.session(waiting["session"]), waiting["ids"], given)
        return _told(waiting["told"], turns, is_ask=is_ask)

    async def list_resources(self, _: Context, __: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
        said = f"What was asked, decided and done: the last {MOST_ENTRIES} entries."
        state = types.Resource(
            uri=STATE, name="state", description="What every device says of itself.", mime_type="application/json"
        )
        journal = types.Resource(uri=JOURNAL, name="journal", description=said, mime_type="text/plain")
        return types.ListResourcesResult(resources=[state, journal])

    async def read_resource(self, _: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        if params.uri == STATE:
            state = await in_thread(self._hub.state)
            text, kind = json.dumps({"state": state, "clock": self._hub.runtime.clock_text}), "application/json"
        elif params.uri == JOURNAL:
            events = await in_thread(partial(self._hub.events, MOST_ENTRIES))
            text, kind = "\n".join(map(event_line, events)), "text/plain"
        else:
            raise MCPError(types.INVALID_PARAMS, f"there are {STATE} and {JOURNAL}, and no other resource")
        return types.ReadResourceResult(
            contents=[types.TextResourceContents(uri=params.uri, mime_type=kind, text=text)]
        )


def make_server(hub: Hub) -> Server[Conversations]:
    """Return the SDK's server for a box; each `run` of it is one client's, streamable_http_app is for many."""
    box = _Box(hub)

    @asynccontextmanager
    async def conversations(_: Server[Conversations]) -> AsyncIterator[Conversations]:
        yield Conversations(hub, MOST_MCP_SESSIONS)

    server = Server[Conversations](
        "edgewright",
        version=version("edgewright"),
        title=hub.site.title,
        instructions=f"Devices of {hub.site.title}. Where a person's yes is needed, the server asks for it by itself.",
        lifespan=conversations,
        get_tool_input_schema=lambda name: box.tools[name].input_schema if name in box.tools else None,
        on_list_tools=box.list_tools,
        on_call_tool=box.call_tool,
        on_list_resources=box.list_resources,
        on_read_resource=box.read_resource,
    )
    sealed = RequestStateSecurity(keys=[os.urandom(32)], ttl=2 * CONFIRMATION_S, bind_principal=_peer)
    server.middleware.append(RequestStateBoundary(sealed, default_audience=hub.name))
    return server


def streamable_http_app(hub: Hub) -> tuple[ASGIApp, AbstractAsyncContextManager[None]]:
    """Return the app for exactly one path, and what must be entered once, around all of its serving.

    `app, running = streamable_http_app(hub)`, then `Route("/mcp", endpoint=app)`, and `async with running:` in the
    lifespan of the app that has the route. The SDK's own check of Host and Origin is off: access.py has made it.
    """
    manager = StreamableHTTPSessionManager(
        make_server(hub),
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        max_request_body_size=MOST_BYTES,
        session_idle_timeout=MCP_SESSION_IDLE_S,
        max_sessions=MOST_MCP_SESSIONS,
    )
    return StreamableHTTPASGIApp(manager), manager.run()


async def serve_stdio(hub: Hub) -> None:
    """Serve one client over stdin and stdout until stdin ends; other output to stdout goes to stderr meanwhile."""
    server = make_server(hub)
    async with stdio_server(stdin=cast("Any", read_lines(MOST_BYTES))) as (read, write):
        with redirect_stdout(sys.stderr):  # what the SDK does for the descriptor, for what Python has buffered
            await server.run(read, write, server.create_initialization_options())


def _tool(one: ToolDescription) -> types.Tool:
    hints = types.ToolAnnotations(read_only_hint=one.is_reading, destructive_hint=one.is_harmful, open_world_hint=False)
    return types.Tool(name=one.name, description=one.text, input_schema=one.schema, annotations=hints)


def _peer(context: ServerRequestContext[Any, Any]) -> str | None:
    """Return the address that a request came from; None over stdio."""
    client = getattr(context.request, "client", None)
    return client.host if client else None


def _conversation(context: Context) -> Conversation:
    """Return what a call belongs to: over HTTP its MCP session, over stdio the whole of it, without sessions itself."""
    key = context.request.headers.get("mcp-session-id", "") if context.request else "stdio"
    key = "" if context.protocol_version in MODERN else key
    return context.lifespan_context.of(key, f"mcp {_peer(context) or 'stdio'}")


def _can_ask(context: Context) -> bool:
    """Return whether the client can put a form before its person; one that names no mode means forms."""
    capabilities = context.session.client_capabilities
    wanted = capabilities.elicitation if capabilities else None
    has_form = wanted is not None and (wanted.form is not None or wanted.url is None)
    return has_form and (context.protocol_version in MODERN or context.session.can_send_request)


def _question_text(waiting: Confirmation) -> str:
    return f"{waiting.question} ({waiting.effect})"


def _question(waiting: Confirmation) -> types.ElicitRequest:
    field = {"type": "boolean", "title": "Yes, do it"}
    form = {"type": "object", "properties": {YES: field}, "required": [YES]}
    params = types.ElicitRequestFormParams(message=_question_text(waiting), requested_schema=form)
    return types.ElicitRequest(params=params)


async def _answer_to(context: Context, waiting: Confirmation) -> bool:
    """Ask the person in the middle of a call; whatever is no clear yes in time is a no."""
    try:
        answer = await context.session.send_request(
            _question(waiting),
            types.ElicitResult,
            request_read_timeout_seconds=CONFIRMATION_S,
            metadata=ServerMessageMetadata(related_request_id=context.request_id),
        )
    except (MCPError, ValidationError):  # the client refused, answered something else, or took too long
        return False
    return _is_yes(answer)


def _is_yes(answer: object) -> bool:
    is_accepted = isinstance(answer, types.ElicitResult) and answer.action == "accept"
    return is_accepted and (cast("types.ElicitResult", answer).content or {}).get(YES) is True


async def _give(session: Session, ids: Sequence[str], given: Sequence[bool]) -> list[Turn]:
    """Give a session the answers to what waits, each by its id. Raises RefusedError if it does not wait any more."""
    answers = zip(ids, given, strict=True)
    return [await in_thread(partial(session.confirm, id_, is_yes=is_yes)) for id_, is_yes in answers]


def _told(told: Sequence[Any], turns: Sequence[Turn], *, is_ask: bool) -> types.CallToolResult:
    """Return what was done before the questions, and what came of the answers."""
    answer, actions = told
    later = [one for turn in turns for one in turn.to_json()["actions"]]
    is_done = all(turn.outcomes for turn in turns) and _are_done([*actions, *later])
    text = " ".join([answer, *dict.fromkeys(turn.answer for turn in turns)])
    return _result(text, [*actions, *later], is_error=not is_ask and not is_done)


def _are_done(actions: Sequence[Mapping[str, Any]]) -> bool:
    return all(one["status"] in DONE for one in actions)


def _plain(params: types.CallToolRequestParams) -> dict[str, Any]:
    """Return name and arguments without half characters, which JSON may have and UTF-8 has not."""
    text = json.dumps({"name": params.name, "arguments": params.arguments or {}}, ensure_ascii=False)
    plain: dict[str, Any] = json.loads(text.encode("utf-8", "replace"))
    return plain


def _failure(error: EdgeError) -> types.CallToolResult:
    return _result(f"{error}{f' ({error.hint})' if error.hint else ''}", [], is_error=True)


def _result(answer: str, actions: Sequence[Mapping[str, Any]], *, is_error: bool) -> types.CallToolResult:
    text = " ".join(answer.split()) or "There was nothing to do."
    structured = {"answer": text, "actions": list(actions)}
    return types.CallToolResult(
        content=[types.TextContent(text=text)], structured_content=structured, is_error=is_error
    )
