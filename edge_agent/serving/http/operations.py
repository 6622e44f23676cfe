"""What whoever runs a box watches: /healthz, /metrics for Prometheus, and systemd's notifications.

Sources: Prometheus exposition format; sd_notify(3), systemd.service(5) WatchdogSec.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Iterator
from functools import partial

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from devices.broker.journal import Event
from edge_agent.serving.door import in_thread
from edge_agent.serving.hub import OPEN, Hub


class _BoxCollector(Collector):
    """Reads a hub's figures whenever Prometheus asks."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._events: Counter[str] = Counter()
        hub.listen(self._count)

    def _count(self, event: Event) -> None:
        self._events[event.event.lower()] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        hub, figures = self._hub, self._hub.queue.figures
        events = CounterMetricFamily("edgewright_journal_events", "Journal entries since the start.", labels=["event"])
        for name, count in list(self._events.items()):
            events.add_metric([name], count)
        yield events
        doors = GaugeMetricFamily("edgewright_door_open", "1 if a door is open.", labels=["door"])
        for name, how in hub.doors.items():
            doors.add_metric([name], how == OPEN)
        yield doors
        state = hub.state()
        answering = GaugeMetricFamily("edgewright_device_answers", "1 if a device answers.", labels=["device"])
        for name, device in hub.site.devices.items():
            if device.properties:
                answering.add_metric([name], bool(state.get(name)))
        yield answering
        for name, what, value in (
            ("engine_replies", "Replies made by the engine.", figures.replies),
            ("engine_tokens", "Tokens of replies.", figures.tokens),
            ("engine_prompt_tokens", "Tokens of prompts.", figures.prompt_tokens),
            ("engine_reused_tokens", "Tokens of prompts that were not evaluated again.", figures.reused_tokens),
            ("engine_busy_seconds", "Time the engine worked.", figures.busy_s),
            ("engine_cancelled", "Replies whose client went away.", figures.cancelled),
        ):
            yield CounterMetricFamily(f"edgewright_{name}", what, value=value)
        for name, what, number in (
            ("engine_waiting", "Requests that wait for the engine.", figures.waiting),
            ("sessions", "Conversations.", hub.sessions),
            ("listeners", "Clients that listen to news.", hub.feed.listeners),
            ("owed_endings", "Timed outputs that are still to be ended.", len(hub.runtime.broker.owed())),
        ):
            yield GaugeMetricFamily(f"edgewright_{name}", what, value=number)


def operations_routes(hub: Hub) -> list[Route]:
    """Return the routes of a box's health: /healthz for anybody, /metrics as guarded as everything else."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_BoxCollector(hub))

    async def healthz(_: Request) -> Response:
        is_alive = await in_thread(hub.is_engine_alive)
        return JSONResponse({"status": "ok" if is_alive else "engine is down"}, 200 if is_alive else 503)

    async def metrics(_: Request) -> Response:
        return Response(await in_thread(partial(generate_latest, registry)), media_type=CONTENT_TYPE_LATEST)

    return [Route("/healthz", healthz), Route("/metrics", metrics)]


def notify_systemd(message: str) -> None:
    """Tell systemd, if it started us: `READY=1`, `STATUS=…`, `WATCHDOG=1` or `STOPPING=1`."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as pipe:
        pipe.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        pipe.sendall(message.encode())


async def keep_watchdog(hub: Hub) -> None:
    """Tell systemd's watchdog that this process works, twice in its time, for as long as threads and broker answer."""
    wanted_us = os.environ.get("WATCHDOG_USEC", "")
    if not wanted_us.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        await in_thread(hub.runtime.broker.owed)
        notify_systemd("WATCHDOG=1")
        await asyncio.sleep(int(wanted_us) / 2e6)
