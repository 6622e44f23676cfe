"""The journal in words: one line for an event, and all that one command rested on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from devices.broker.journal import Event

DAY_S = 24 * 3600


def event_line(event: Event) -> str:
    """Return an event on one line: number, time, what happened to which command."""
    about = f"#{event.command} " if event.command is not None else ""
    return f"{event.id:>6}  {_time_text(event.time_s)}  {event.event:<18}  {about}{_summary(event.body)}".rstrip()


def _summary(body: Mapping[str, Any]) -> str:
    if "request" in body:
        return f"{json.dumps(body['request'], ensure_ascii=False)}: {body['answer']}"
    if "action" in body:
        return " ".join([str(body["device"]), str(body["action"]), _pairs(body["input"])]).rstrip()
    return str(body.get("report") or _pairs(body.get("effect", {})))


def explain(events: Sequence[Event]) -> str:
    """Return why a command was or was not carried out, over several lines.

    Args:
        events: those of one command, its proposal first.
    """
    proposal = events[0]
    lines = [f"#{proposal.id}  {_time_text(proposal.time_s)}  proposed: {_summary(proposal.body)}"]
    for event in events[1:]:
        if seen := event.body.get("seen"):
            lines.append(f"  state seen      {_pairs(seen)}")
        for rule in event.body.get("rules", []):
            mark = "" if rule["verdict"] == "passed" else "NO: "
            lines.append(f"  {rule['rule']:<14}  {mark}{rule['text']}")
        if event.event == "STARTED":
            goal = f", to make {_pairs(event.body['effect'])}" if event.body["effect"] else ""
            lines.append(f"  started         {_time_text(event.time_s)}{goal}")
        else:
            read_back = {name: value for name, value in event.body["result"].items() if name in _read_back(events)}
            lines += [f"  read back       {_pairs(read_back)}"] if read_back else []
            lines += [f"  driver          {event.body['heard']}"] if "heard" in event.body else []
            lines.append(f"  {event.event.lower().replace('_', ' '):<14}  {event.body['report']}")
    if len(events) == 1 or events[-1].event == "STARTED":
        lines.append("  no end          the controller stopped before it knew what came of it")
    return "\n".join(lines)


def _read_back(events: Sequence[Event]) -> set[str]:
    """Return the names of the properties in the result, none if nothing was started."""
    is_started = any(event.event == "STARTED" for event in events)
    return set(events[-1].body.get("result", {})) - {"status", "device", "reason"} if is_started else set()


def _pairs(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={json.dumps(value)}" for name, value in values.items())


def _time_text(time_s: float) -> str:
    """Return local date and time, or the time of day alone for a simulated clock, which starts at midnight."""
    if time_s < 2 * DAY_S:
        return f"{int(time_s) // 3600 % 24:02d}:{int(time_s) // 60 % 60:02d}:{int(time_s) % 60:02d}"
    return datetime.fromtimestamp(time_s).isoformat(" ", "seconds")
