"""What boxes say of a release, and whether that lets more of them have it.

A repository is static files: nobody hears a box. So each writes down, in `trust/answer.json` of its root, what came of
the last release that it tried. Those files are brought to who publishes, over SSH or on a stick, and `publish` holds
them against the bundle before it gives it to more boxes.

Does not guard against: answers that no box gave. They are not signed.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from devices.durable import write_file
from devices.errors import GateError, UsageError
from devices.yaml_file import Strict, first_problem
from export.release.trust import TRUST, Trusted, box_id

ANSWER = "answer.json"


class Answer(Strict):
    """What came of the last release that a box tried: it has it, or kept what it had, and why."""

    schema_: Literal["answer/v1"] = Field(default="answer/v1", alias="schema")
    box: str
    channel: str
    sequence: int
    bundle: str
    state: Literal["installed", "failed"]
    reason: str = ""


def note_answer(box: Path, trusted: Trusted, failure: str = "") -> None:
    """Write a box's answer; what was written already, or cannot be, is left."""
    release = trusted.release
    with suppress(OSError):
        answer = Answer(
            box=box_id(box).decode("ascii", errors="replace"),
            channel=trusted.channel,
            sequence=release.sequence,
            bundle=release.bundle,
            state="failed" if failure else "installed",
            reason=failure,
        )
        data = answer.model_dump_json(by_alias=True).encode() + b"\n"
        path = box / TRUST / ANSWER
        if not path.is_file() or path.read_bytes() != data:
            write_file(path, data)


def read_answers(folder: Path) -> list[Answer]:
    """Return the answers in a folder's .json files. Raises UsageError if there is no such folder, or one is none."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", hint=f"put {TRUST}/{ANSWER} of each box there, under any name")
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(Answer.model_validate_json(path.read_bytes()))
        except ValidationError as error:
            raise UsageError(f"{path} is no box's answer: {first_problem(error, Answer)[1]}") from error
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    return found


def require_answers(folder: Path, bundle: str, at_least: int) -> int:
    """Return how many boxes have taken a bundle.

    Raises:
        GateError: one did not, or fewer than `at_least` have.
        UsageError: as read_answers.
    """
    answers = [one for one in read_answers(folder) if one.bundle == bundle]
    if failed := {one.box: one for one in answers if one.state == "failed"}:
        first = next(iter(failed.values()))
        hint = "it is given to no more boxes; publish the older bundle again, or a better one"
        raise GateError(f"{bundle} was not taken by {len(failed)} of the boxes: {first.box}: {first.reason}", hint=hint)
    count = len({one.box for one in answers})
    if count < at_least:
        hint = "wait for more of them: a box that is silent may be one that it has stopped"
        raise GateError(f"{bundle} was taken by {count} of the boxes in {folder}, not by {at_least}", hint=hint)
    return count
