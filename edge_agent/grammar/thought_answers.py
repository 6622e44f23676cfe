"""The answers that a finished thought has already named: what is asked of devices, as their state says it.

    a question: hall: hall thermostat is hall_thermostat: target_c=21 temperature_c=18.5.
    any: kitchen_light: on=false; porch_light: on=true; on: porch_light.

A thought that says anything else names no answer; then the model writes it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

from edge_agent.grammar.grammar import Known, KnownDevice

FORMS = ("which", "which not", "any", "all", "how many")  # of questions about all devices of a kind
MOST_ANSWERS = 64  # of which the model decides on one
_ASKED = re.compile(r"(?:.*[:,] )?(?:(?! is )[^:,])+ is (\w+):( .*)")
_COUNTED = re.compile(rf"({'|'.join(FORMS)}): (.*); ([^;:]+):( .*)")
_LISTING = re.compile(rf"({'|'.join(FORMS)}): (.*); ([^;:]+):")


def answers_of(thought: str, known: Known) -> list[str]:
    """Return the answers of which a thought names one, without its markers; none if it names none."""
    devices = {one.device: one for one in known.devices}
    text = thought.removesuffix(".")
    if counted := _COUNTED.fullmatch(text):
        form, facts, label, listed = counted.groups()
        asked, having = _those_so(facts, label, known)
        if not asked or listed != _listing(having) or any(one not in devices for one in asked):
            return []
        return [answer_about_kind(form, [devices[one] for one in asked], [devices[one] for one in having], label)]
    asked = _facts_of(text, known)
    answers = [devices[one].answers for one in asked if one in devices]
    if len(answers) != len(asked):
        return []
    found = list(dict.fromkeys(" ".join(one) for one in product(*answers))) if answers else []
    return found if len(found) <= MOST_ANSWERS else []


def listed_devices(thought: str, known: Known) -> str:
    """Return those that are so, of the devices whose facts a thought has listed, if it has come to that; or ""."""
    if (listing := _LISTING.fullmatch(thought)) is None:
        return ""
    asked, having = _those_so(listing[2], listing[3], known)
    return _listing(having) if asked else ""


def _those_so(facts: str, label: str, known: Known) -> tuple[list[str], list[str]]:
    """Return the devices whose facts are listed, and those of them that are so; none if that is not known of each."""
    truths = {(device, words): so for device, words, so in known.truths}
    asked = _facts_of(facts, known)
    if any((one, label) not in truths for one in asked):
        return [], []
    return asked, [one for one in asked if truths[one, label] == "yes"]


def _listing(devices: Sequence[str]) -> str:
    return f" {', '.join(devices) or 'none'}"


def _facts_of(text: str, known: Known) -> list[str]:
    """Return the devices whose facts a text lists, `NAME is DEVICE: FACTS` or `DEVICE: FACTS`; none if it says more."""
    facts, found = dict(known.facts), []
    for part in text.split("; "):
        named = _ASKED.fullmatch(part) or re.fullmatch(r"(\w+):( .*)", part)
        if named is None or facts.get(named[1]) != named[2]:
            return []
        found.append(named[1])
    return found


def answer_about_kind(form: str, devices: Sequence[KnownDevice], having: Sequence[KnownDevice], label: str) -> str:
    """Return the answer to a question about all devices of a kind.

    Args:
        form: of FORMS.
        devices: those that it is about.
        having: those of them that are so.
        label: how those are, in words.
    """
    singular, plural = devices[0].singular, devices[0].plural
    listed = _listed(having)
    so = f"{listed} {'is' if len(having) == 1 else 'are'} {label}"
    if form == "all":
        if len(having) == len(devices):
            return f"Yes, all {plural} are {label}."
        others = [one for one in devices if one not in having]
        return f"No, {_listed(others)} {'is' if len(others) == 1 else 'are'} not {label}."
    if form == "how many":
        counted = f"{len(having)} of {len(devices)} {plural} {'is' if len(having) == 1 else 'are'} {label}"
        return f"{counted}: {listed}." if having else f"{counted}."
    if form == "any":
        return f"Yes, {so}." if having else f"No, no {singular} is {label}."
    return f"{so[:1].upper()}{so[1:]}." if having else f"No {singular} is {label}."


def _listed(devices: Sequence[KnownDevice]) -> str:
    names = [f"the {one.title}" for one in devices]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""
