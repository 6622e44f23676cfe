"""Announces a service in the local network by mDNS (DNS-SD, RFC 6763). The one file that knows the zeroconf library."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

MDNS = ("224.0.0.251", 5353)  # RFC 6762


@asynccontextmanager
async def announced(kind: str, name: str, host: str, port: int, tell: Callable[[str], None]) -> AsyncIterator[None]:
    """Announce a service as long as this is entered; where that is not possible, tell so and go on without.

    Args:
        kind: such as `_wyoming._tcp.local.`
        name: of the service; "" announces nothing. Where another has it, a number is added.
        host: where it listens.
        port: where it listens.
        tell: hears of a problem.
    """
    if not name:
        yield
        return
    from zeroconf import Error
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

    responder = None
    try:
        address = _address(host)
        service = AsyncServiceInfo(kind, f"{name}.{kind}", port=port, parsed_addresses=[address])
        responder = AsyncZeroconf(interfaces=[address])
        await (await responder.async_register_service(service, allow_name_change=True))
    except (Error, OSError) as error:
        tell(f"{name} could not be announced: {type(error).__name__} {error}".rstrip())
    try:
        yield
    finally:
        if responder:
            await responder.async_unregister_all_services()
            await responder.async_close()


def _address(host: str) -> str:
    """Return where others reach a host of this machine; where it is all of them, that of the way to the local network.

    Raises OSError: there is no such way.
    """
    try:
        if not ipaddress.ip_address(host).is_unspecified:
            return host
    except ValueError:
        return socket.gethostbyname(host)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(MDNS)  # sends nothing
        return str(probe.getsockname()[0])
