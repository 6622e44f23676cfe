"""A broker over a site's simulated world, for the command line."""

from __future__ import annotations

from collections.abc import Iterable

from devices.broker import Broker
from devices.errors import UsageError
from devices.journal import Journal
from devices.simulator import SimulatedDriver, World
from devices.site import Action, Value, load_site
from devices.yaml_file import parse_value


def open_broker(site: str, *, says_yes: bool = False) -> tuple[Broker, World]:
    """Return a broker and the fresh world behind it."""
    loaded = load_site(site)
    world = World(loaded)
    confirm = (lambda effect: True) if says_yes else None
    return Broker(loaded, SimulatedDriver(world), Journal(), clock=lambda: world.time_s, confirm=confirm), world


def parse_arguments(action: Action, written: Iterable[str]) -> dict[str, Value]:
    """Return `name=value` words as arguments, typed as YAML types them.

    Raises:
        UsageError: a word is not name=value; whether the value fits is the broker's to say.
    """
    arguments: dict[str, Value] = {}
    for word in written:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"{word!r} is not name=value", hint=f"arguments: {', '.join(action.input) or 'none'}")
        arguments[name] = parse_value(value, word)
    return arguments
