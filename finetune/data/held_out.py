"""The held-out split: which phrasing templates are kept out of training.

A template is held out by the hash of its text alone, so that the same words are on the same side everywhere: in the
starter's pretraining, in every fine-tune, and in evaluation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cache

HELD_OUT_SHARE = 4  # one template in four
_SALT = "edgewright-split-4"
EMPTY_WORDS = frozenset("a an the my your our please kindly now just".split())


@cache
def is_held_out(template: str) -> bool:
    """Return whether a template is for evaluation only; names of arguments do not matter."""
    text = re.sub(r"{(?!device|label|property|verb|plural|singular)\w+}", "{value}", template)
    return hashlib.sha256(f"{_SALT}|{text}".encode()).digest()[0] % HELD_OUT_SHARE == 0


def words_of(text: str) -> tuple[str, ...]:
    """Return a text's words in lower case."""
    return tuple(re.findall(r"\w+", text.lower()))


def content_of(text: str) -> tuple[str, ...]:
    """Return a text's words in lower case, without those that change nothing about what is asked."""
    return tuple(word for word in words_of(text) if word not in EMPTY_WORDS)


def side(templates: Iterable[str], held_out: bool) -> list[str]:
    """Return the templates of one side of the split, in their order; on neither are held-out ones nearly trained on."""
    return list(_sides(tuple(templates))[held_out])


@cache
def _sides(templates: tuple[str, ...]) -> tuple[list[str], list[str]]:
    trained = [template for template in templates if not is_held_out(template)]
    known = set(map(content_of, trained))
    return trained, [template for template in templates if is_held_out(template) and content_of(template) not in known]
