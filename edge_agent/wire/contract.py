"""The contract: what training and running must agree on, to the byte. System prompt, tools, template, wire format."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from devices.site.schema import DataSchema
from devices.site.site import Site
from devices.site.tools import Tool, tools_of
from edge_agent.wire.chat_template import ChatTemplate, ContractChanged
from edge_agent.wire.messages import compact_json
from edge_agent.wire.spelling import NO_WORDS, SiteWords, words_of

WIRE_FORMAT = "wire/4"  # how turns are written below; a change of it is another contract
TOOLS_HEADING = "Tools:"


@dataclass(frozen=True)
class Contract:
    """What training and running must agree on, to the byte.

    `words` is what requests are spelled by; it is free: a new name of a device needs no training.
    """

    template: ChatTemplate
    system_text: str
    tools: tuple[Tool, ...]
    words: SiteWords = NO_WORDS

    @property
    def digest(self) -> str:
        """SHA-256 in hex of wire format, template, system prompt and tool schemas."""
        parts = [
            WIRE_FORMAT,
            self.template.source,
            self.system_text,
            *(compact_json(tool.openai()) for tool in self.tools),
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def contract_of(site: Site, template: ChatTemplate) -> Contract:
    """Return the contract that a site and a template make."""
    tools = tuple(tools_of(site))
    return Contract(template, system_text(site.title, tools), tools, words_of(site))


def require_contract(expected: str, actual: str, what: str) -> None:
    """Raise ContractChanged unless both digests are equal."""
    if expected != actual:
        raise ContractChanged(
            f"{what} was trained for another contract ({expected[:12]}, this site makes {actual[:12]})",
            hint="template, system prompt or tools changed: train again for this site, or use the site it was made for",
        )


def system_text(title: str, tools: Iterable[Tool]) -> str:
    """Return the static prompt: who the assistant is and every tool's signature, one a line."""
    lines = [
        f"You control {title}. Think first, then call tools or answer.",
        "Act only when asked to. Values outside a range, unknown devices and missing values are not called.",
        TOOLS_HEADING,
    ]
    return "\n".join([*lines, *(f" {signature(tool)}" for tool in tools)])  # the blank: see user_message


def signature(tool: Tool) -> str:
    """Return a tool on one line: `light_brightness(device: a | b, brightness: 0..100 percent)`."""
    arguments = [devices_text(tool)]
    arguments += [argument_text(name, schema) for name, schema in tool.input.items()]
    return f"{tool.name}({', '.join(arguments)})"


def devices_text(tool: Tool) -> str:
    """Return a tool's devices as signatures, and thoughts that copy from them, write them: `device: a | b`."""
    return f"device: {' | '.join(tool.devices)}"


def argument_text(name: str, schema: DataSchema) -> str:
    """Return an argument as signatures, and thoughts that copy from them, write it: `brightness: 0..100 percent`."""
    if schema.enum:
        return f"{name}: {' | '.join(schema.enum)}"
    if schema.type == "boolean":
        return f"{name}: true | false"
    return f"{name}: {schema.minimum:g}..{schema.maximum:g} {schema.unit}".rstrip()
