"""Home Assistant's own sentences: what a request asks of a site's devices, if one of them matches it whole.

Home Assistant's Assist understands a request if one of its community's templates matches it whole. The templates come
from the package home-assistant-intents (CC BY 4.0), the parser is hassil; both are of the extra `intents`. A request
that no template matches, or that several match with different calls, is not understood. Templates that need to know in
which room the person is are left out: nobody says so here. Questions are left out too: only actions are recognised.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from devices.errors import UsageError
from devices.site.device import Device
from devices.site.schema import Value
from devices.site.site import Site
from devices.site.tools import Command

ACTIONS = {  # what an intent does to a device of a kind
    "HassTurnOn": {
        **dict.fromkeys(("light", "switch", "fan", "media_player", "humidifier", "siren", "water_heater"), "on"),
        "cover": "open", "valve": "open", "lock": "lock", "scene": "turn_on",
    },
    "HassTurnOff": {
        **dict.fromkeys(("light", "switch", "fan", "media_player", "humidifier", "siren", "water_heater"), "off"),
        "cover": "close", "valve": "close", "lock": "unlock",
    },
    "HassLightSet": {"light": "brightness"},
    "HassSetPosition": {"cover": "set"},
    "HassClimateSetTemperature": {"climate": "set"},
    "HassFanSetSpeed": {"fan": "set"},
    "HassVacuumStart": {"vacuum": "start"},
    "HassVacuumReturnToBase": {"vacuum": "return_to_base"},
    "HassLawnMowerStartMowing": {"lawn_mower": "start"},
    "HassLawnMowerDock": {"lawn_mower": "dock"},
    "HassMediaPause": {"media_player": "pause"},
    "HassMediaUnpause": {"media_player": "play"},
    "HassMediaNext": {"media_player": "next"},
    "HassMediaPrevious": {"media_player": "previous"},
    "HassMediaPlayerMute": {"media_player": "mute"},
    "HassMediaPlayerUnmute": {"media_player": "unmute"},
    "HassSetVolume": {"media_player": "set_volume"},
}  # fmt: skip
SAID_OF = re.compile(r"name_(only|area|brightness|temperature)|area_(only|domain|brightness|temperature)|domain_all")
VALUES = ("brightness", "temperature", "position", "percentage", "volume_level")


def load_sentences(language: str, wanted_by: str) -> dict[str, Any]:
    """Return the sentences of a language, as home-assistant-intents has them.

    Raises:
        UsageError: that package or hassil, which `wanted_by` needs, is not installed, or there is no such language.
    """
    try:
        import hassil.expression  # noqa: F401 - what reads them
        from home_assistant_intents import get_intents, get_languages
    except ImportError as error:
        hint = "pip install edgewright[intents]"
        raise UsageError(f"{wanted_by} needs the package {error.name}", hint=hint) from error
    if language not in (known := get_languages()):
        raise UsageError(f"Home Assistant has no sentences in {language!r}", hint=f"it has {', '.join(known)}")
    found: dict[str, Any] = get_intents(language)
    return found


class IntentRecognizer:
    """Finds what a request asks of a site's devices, by Home Assistant's sentences.

    Raises:
        UsageError: the packages are not installed, or have no such language.
    """

    def __init__(self, site: Site, language: str = "en") -> None:
        theirs = load_sentences(language, "recognising intents")
        from hassil.expression import TextChunk
        from hassil.intents import Intents, TextSlotList, TextSlotValue

        used = {
            intent: {"data": [one for one in theirs["intents"][intent]["data"] if _is_usable(one)]}
            for intent in ACTIONS
            if intent in theirs["intents"]
        }
        parts = {key: theirs[key] for key in ("lists", "expansion_rules", "skip_words")}
        self._intents = Intents.from_dict({"language": language, "intents": used} | parts)
        self._site = site

        def slots(name: str, pairs: Iterator[tuple[str, str, dict[str, str]]]) -> Any:
            values = [TextSlotValue(TextChunk(text), out, context=context) for text, out, context in pairs]
            return TextSlotList(name=name, values=values)

        self._slots = {
            "name": slots("name", _device_names(site)),
            "area": slots("area", _place_names(site.areas)),
            "floor": slots("floor", _place_names(site.floors)),
        }

    def commands(self, request: str) -> tuple[Command, ...]:
        """Return what a request asks for; nothing if no sentence matches, or several with other calls."""
        from hassil.recognize import recognize_all

        found = {
            commands
            for result in recognize_all(request.strip().rstrip(".!?"), self._intents, slot_lists=self._slots)
            if (commands := self._meant(result))
        }
        if len(found) != 1:
            return ()
        return tuple(Command(device, action, dict(given)) for device, action, given in found.pop())

    def _meant(self, result: Any) -> tuple[tuple[str, str, tuple[tuple[str, Value], ...]], ...]:
        said = {name: entity.value for name, entity in result.entities.items()}
        values = [said[name] for name in VALUES if name in said]
        meant = []
        for device in self._devices(said, str(result.context.get("domain") or said.get("domain", ""))):
            action = ACTIONS[result.intent.name].get(device.kind, "")
            schemas = device.actions[action].input if action in device.actions else {}
            if action not in device.actions or len(schemas) != len(values):
                return ()
            if any(schema.problem_with(value) for schema, value in zip(schemas.values(), values, strict=True)):
                return ()
            meant.append((device.name, action, tuple(zip(schemas, values, strict=True))))
        return tuple(meant)

    def _devices(self, said: dict[str, Any], kind: str) -> list[Device]:
        if "name" in said:
            return [self._site.devices[said["name"]]]
        same = [one for one in self._site.devices.values() if one.kind == kind]
        return [one for one in same if said.get("area", one.area) == one.area]


def _is_usable(block: dict[str, Any]) -> bool:
    in_room = block.get("requires_context", {}).get("area")
    return bool(SAID_OF.fullmatch(block["metadata"]["slot_combination"])) and not in_room


def _device_names(site: Site) -> Iterator[tuple[str, str, dict[str, str]]]:
    for device in site.devices.values():
        yield from ((name, device.name, {"domain": device.kind}) for name in device.names)


def _place_names(places: Any) -> Iterator[tuple[str, str, dict[str, str]]]:
    for name, place in places.items():
        yield from ((text, name, {}) for text in (place.title, *place.aliases))
