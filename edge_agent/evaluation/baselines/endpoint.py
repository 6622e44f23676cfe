"""A model behind any OpenAI-compatible endpoint as a baseline, which gets the same state and tools.

`https://host/v1#MODEL` names it; the key comes from the environment variable OPENAI_API_KEY and goes nowhere else. What
it calls goes through the same broker as everything. There is no grammar: a call that fits no tool is answered with what
is wrong with it, and the model may try again.

Source: OpenAI API reference, "Create chat completion".
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, cast

from devices.broker.broker import Outcome
from devices.broker.runtime import SiteRuntime
from devices.errors import UnavailableError, UsageError
from devices.no_redirect import NoRedirect
from devices.site.describe import reports_text
from devices.site.tools import ToolCall, action_of, commands_of
from edge_agent.agent.agent import Agent, Controls
from edge_agent.agent.turn import ActionRecord, TurnLimits, TurnResult
from edge_agent.engine.engine import Completion, Request
from edge_agent.evaluation.case_simulation import CaseSimulation
from edge_agent.wire.contract import Contract
from edge_agent.wire.messages import user_message

ENDPOINT = "endpoint"
KEY = "OPENAI_API_KEY"
TIMEOUT_S, TRIES, WAIT_S = 120.0, 4, 2.0
AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
MAX_ANSWER_BYTES = 4 << 20


@dataclass(frozen=True)
class Endpoint:
    """Where a model is reached, by its base URL and name."""

    url: str
    model: str
    wait_s: float = WAIT_S

    @classmethod
    def parse(cls, name: str) -> Endpoint:
        """Return what `https://host/v1#MODEL` names. Raises UsageError if no model is named."""
        url, _, model = name.partition("#")
        if not model:
            raise UsageError(f"{name}: which model?", hint="as in https://api.example.com/v1#MODEL")
        return cls(url.rstrip("/"), model)

    def complete(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the assistant's message; tries again where waiting may help.

        Raises:
            UsageError: the endpoint refuses the request or the key.
            UnavailableError: it is down, too slow, or answers something else.
        """
        body = {"model": self.model, "messages": messages, "tools": tools, "temperature": 0}
        for number in range(1, TRIES + 1):
            try:
                return self._post(body)
            except UnavailableError:
                if number == TRIES:
                    raise
                time.sleep(self.wait_s * 2 ** (number - 1))
        raise AssertionError

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        where, key = f"{self.url}/chat/completions", os.environ.get(KEY, "")
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        request = urllib.request.Request(where, json.dumps(body).encode(), headers)  # noqa: S310 - http(s) by find_model
        try:
            with urllib.request.build_opener(NoRedirect()).open(request, timeout=TIMEOUT_S) as answer:
                raw = answer.read(MAX_ANSWER_BYTES)
        except urllib.error.HTTPError as error:
            said = error.read(400).decode(errors="replace")
            error.close()
            what = f"{where} answered {error.code}: {' '.join(said.split())}"
            if error.code in AGAIN:
                raise UnavailableError(what, hint="try again later") from error
            raise UsageError(what, hint=f"is {KEY} set, and the model's name right?") from error
        except (OSError, HTTPException) as error:
            raise UnavailableError(f"{where} cannot be reached: {getattr(error, 'reason', error)}") from error
        try:
            return dict(json.loads(raw)["choices"][0]["message"])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise UnavailableError(f"{where} answered no chat completion: {raw[:80]!r}") from error


@dataclass
class EndpointAgent:
    """An agent of an endpoint's model, which remembers the conversation."""

    endpoint: Endpoint
    contract: Contract
    broker: Controls
    clock_text: Any
    limits: TurnLimits
    prefix: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)

    def run(self, ask: str) -> Generator[Request, Completion, TurnResult]:
        """Work one request; a generator like Agent's, which never yields."""
        yield from ()
        state, ages = self.broker.state_with_ages()
        if not self.messages:
            self.messages.append({"role": "system", "content": self.contract.system_text})
        user = user_message(ask, state, self.clock_text(), self.contract.words, ages)
        self.messages.append({"role": "user", "content": user.text})
        tools, outcomes, text = [one.openai() for one in self.contract.tools], list[Outcome](), ""
        stop_reason = "step_limit"
        for _ in range(self.limits.model_replies):
            message = self.endpoint.complete(self.messages, tools)
            calls = message.get("tool_calls") or []
            text = message.get("content") or ""
            self.messages.append({"role": "assistant", "content": text} | ({"tool_calls": calls} if calls else {}))
            if not calls:
                stop_reason = "answer"
                break
            for call in calls:
                result = self._carry_out(call["function"], outcomes)
                self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps(result)})
        return self._result(ask, text, outcomes, stop_reason)

    def _carry_out(self, function: dict[str, Any], outcomes: list[Outcome]) -> Any:
        try:
            arguments = json.loads(function["arguments"] or "{}")
        except ValueError:
            return {"status": "refused", "reason": "the arguments are no JSON"}
        if not isinstance(arguments, dict):
            return {"status": "refused", "reason": "the arguments are no object"}
        commands = commands_of(ToolCall(function["name"], arguments), self.contract.tools)
        if isinstance(commands, str):
            return {"status": "refused", "reason": commands}
        done = [self.broker.execute(command) for command in commands]
        outcomes += done
        return [one.result for one in done]

    def _result(self, ask: str, text: str, outcomes: list[Outcome], stop_reason: str) -> TurnResult:
        told = reports_text([(action_of(self.broker.site, one.command)[0].title, one.report) for one in outcomes])
        return TurnResult(ask, told or text, text, "", tuple(map(ActionRecord.of, outcomes)), (), (), stop_reason)


@dataclass
class EndpointSimulation(CaseSimulation):
    """Agents of an endpoint's model, each in a world of its own."""

    endpoint: Endpoint = field(kw_only=True)

    def agent_in(self, runtime: SiteRuntime) -> Agent:
        """Return an agent that works devices with the endpoint's model."""
        agent = EndpointAgent(self.endpoint, self.contract, runtime.broker, lambda: runtime.clock_text, self.limits)
        return cast(Agent, agent)
