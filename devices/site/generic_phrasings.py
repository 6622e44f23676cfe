"""How people ask for an action that its model has no phrasings for: by the title of what it sets or does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from devices.yaml_file import plain_values, read_yaml

PHRASINGS_FILE = Path(__file__).parent / "generic_phrasings.yaml"


def with_phrasings(action: Any) -> Any:
    """Return an action of a site file with `say`; as it is if it has some, or has no title to be asked for by."""
    if not isinstance(action, Mapping) or "say" in action or not isinstance(action.get("title"), str):
        return action
    if not isinstance(given := action.get("input") or {}, Mapping):
        return action
    templates = _phrasings()[_form(action, given)]
    asked = [template.replace("{title}", action["title"]) for template in templates]
    if len(given) == 1:
        (name,) = given
        return {**action, "say": [template.replace("{value}", f"{{{name}}}") for template in asked]}
    values = " and ".join(f"{str(name).replace('_', ' ')} {{{name}}}" for name in given)
    return {**action, "say": [f"{template} with {values}" for template in asked] if values else asked}


def _form(action: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    if len(given) == 1:
        (schema,) = given.values()
        return "set_number" if isinstance(schema, Mapping) and "minimum" in schema else "set_word"
    written = list((action.get("writes") or {}).values())
    return {(True,): "turn_on", (False,): "turn_off"}.get(tuple(written[:1]), "do") if not given else "do"


@cache
def _phrasings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = plain_values(read_yaml(PHRASINGS_FILE).root)
    return found
