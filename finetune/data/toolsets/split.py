"""Own conversations, split into trained and held-out ones: by phrasing, and of each tool its share.

Conversations whose first requests differ only in numbers, codes and words that change nothing stand on one side.

Does not guard against: requests that say the same in other words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from finetune.data.held_out import content_of
from finetune.data.toolsets.rows import OwnRow

HELD_OUT_SHARE = 0.1
MOST_OF_A_STRATUM = 4  # one part in so many may be held out where phrasings repeat


def split_rows(rows: Sequence[OwnRow], wanted: int) -> tuple[list[OwnRow], list[OwnRow]]:
    """Return the rows to train on, and about as many held-out ones as wanted; the same for the same rows.

    Of the conversations that call the same tools, a share is held out, none where there is but one phrasing. A phrasing
    is held out whole, so that no trained conversation begins with it.
    """
    strata: dict[tuple[str, ...], dict[tuple[str, ...], list[int]]] = {}
    owner: dict[tuple[str, ...], tuple[str, ...]] = {}
    for number, one in enumerate(rows):
        phrasing = phrasing_of(one.request)
        stratum = owner.setdefault(phrasing, one.called)  # also of rows that go on with other tools
        strata.setdefault(stratum, {}).setdefault(phrasing, []).append(number)
    share, held_out = wanted / len(rows), set[int]()
    for phrasings in strata.values():
        count = sum(map(len, phrasings.values()))
        room = min(round(share * count + 0.25), count - 1)
        least = min(map(len, phrasings.values()))
        if 0 < room < least <= count / MOST_OF_A_STRATUM:  # each phrasing is there so often that none would fit
            room = least
        for phrasing in sorted(phrasings, key=_order)[:-1]:
            if len(phrasings[phrasing]) <= room:
                held_out.update(phrasings[phrasing])
                room -= len(phrasings[phrasing])
    trained = [one for number, one in enumerate(rows) if number not in held_out]
    return trained, [one for number, one in enumerate(rows) if number in held_out]


def phrasing_of(text: str) -> tuple[str, ...]:
    """Return what is the same in requests that differ in numbers and codes only."""
    return tuple("_" if any(map(str.isdigit, word)) else word for word in content_of(text))


def _order(phrasing: tuple[str, ...]) -> bytes:
    return hashlib.sha256(" ".join(phrasing).encode()).digest()
