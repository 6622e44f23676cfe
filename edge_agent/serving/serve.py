"""`edgewright serve`: a box, its doors, and a clean end. The process that runs day and night."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from devices.broker.policy import Mode
from edge_agent.agent.session import Admit, open_session, refuse_new_site
from edge_agent.serving.configuration import Configuration
from edge_agent.serving.door import Door, serve_doors
from edge_agent.serving.hub import Hub, open_hub

ENDINGS = (signal.SIGTERM, signal.SIGINT)
SIMULATED = "these devices are simulated; --live works the real ones"


def serve(
    path: Path,
    site: str,
    configuration: Configuration,
    *,
    is_live: bool = False,
    mode: Mode = "auto",
    journal: Path | None = None,
    gpu_layers: int = 0,
    threads: int | None = None,
    over_stdio: bool = False,
    admit: Admit = refuse_new_site,
) -> None:
    """Serve a bundle or a box until SIGTERM or SIGINT; then what was begun ends, and timed outputs are closed.

    Args:
        path: a bundle, or a box's root.
        site: of the site or toolset; "" is the bundle's.
        configuration: which doors.
        is_live: real devices.
        mode: what the broker carries out.
        journal: its file; a box has its own.
        gpu_layers: on a GPU.
        threads: of the engine.
        over_stdio: MCP on standard input and output instead of the doors, until the input ends.
        admit: as open_session's.

    Raises:
        EdgeError: as open_session; or no door could be opened.
    """
    log_plainly()
    log = logging.getLogger("edgewright").info
    with open_session(
        path,
        site,
        journal=journal,
        mode=mode,
        is_live=is_live,
        gpu_layers=gpu_layers,
        threads=threads,
        sequences=configuration.conversations,
        intents=configuration.intents,
        admit=admit,
        tell=log,
    ) as runner:
        with open_hub(runner, log) as hub:
            log(f"{hub.site.title}, model {hub.name}, mode {mode}")
            if not hub.is_live:
                log(SIMULATED)
            if over_stdio:
                from edge_agent.serving.mcp.mcp_door import serve_stdio

                asyncio.run(_until_told(serve_stdio(hub)))
            else:
                asyncio.run(_serve_until_told(hub, doors_of(configuration), log))
        log("stopped")


async def _until_told(work: Coroutine[Any, Any, None]) -> None:
    """Do it to its end, or to SIGTERM or SIGINT."""
    task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
    for number in ENDINGS:
        loop.add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


async def _serve_until_told(hub: Hub, doors: list[Door], log: Callable[[str], None]) -> None:
    from edge_agent.serving.http.operations import keep_watchdog, notify_systemd

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in ENDINGS:
        loop.add_signal_handler(number, stop.set)
    watchdog = asyncio.create_task(keep_watchdog(hub))
    is_ready = False

    def tell(text: str) -> None:
        nonlocal is_ready
        log(text)
        if not is_ready:
            is_ready = True
            notify_systemd(f"READY=1\nSTATUS={text}")

    try:
        await serve_doors(hub, doors, tell, stop)
    finally:
        notify_systemd("STOPPING=1")
        watchdog.cancel()


def doors_of(configuration: Configuration) -> list[Door]:
    """Return the doors that a configuration names; what each needs is imported here, and not before."""
    doors: list[Door] = []
    if configuration.http:
        from edge_agent.serving.http.http_door import HttpServer

        doors.append(HttpServer(configuration.http))
    if configuration.mqtt:
        from edge_agent.serving.mqtt.mqtt_door import MqttServer

        doors.append(MqttServer(configuration.mqtt))
    if configuration.wyoming:
        from edge_agent.serving.wyoming.wyoming_door import WyomingServer

        doors.append(WyomingServer(configuration.wyoming))
    return doors


def log_plainly() -> None:
    """Log to stderr, a line each: time, level and text as `time=… level=… msg="…"` (logfmt), which journald keeps."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Logfmt())
    logger = logging.getLogger("edgewright")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").addHandler(handler)


class _Logfmt(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage().replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        time_text = self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z")
        return f'time={time_text} level={record.levelname.lower()} msg="{text}"'
