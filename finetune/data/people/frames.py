"""What people say around a request that changes nothing about it."""

from __future__ import annotations

from random import Random

from devices.site.phrasings import load_phrasings
from finetune.data.held_out import side
from finetune.data.people.asks import Asks

PLAIN_SHARE = 0.5
FILLER_SHARE = 0.15


def framed(
    asks: Asks, request: str, rng: Random, held_out: bool, *, is_wish: bool = True
) -> tuple[str, tuple[str, ...]]:
    """Return a request with what is said around it, or as it is, and the templates used.

    Around what wants nothing done (not `is_wish`) stand fillers only: "can you do me a favour" asks for something.
    """
    used: tuple[str, ...] = ()
    if rng.random() < FILLER_SHARE:
        filler = rng.choice(side(asks.form("frames", "fillers"), held_out))
        words = request.split(" ")
        words.insert(rng.randrange(len(words) + 1), filler.replace("{ask}", "").strip(" ,"))
        request, used = " ".join(words), (filler,)
    if not is_wish or rng.random() < PLAIN_SHARE:
        return request, used
    starts_with_verb = request.split(" ")[0] in load_phrasings().verbs
    kinds = [
        "polite",
        "polite",
        "rushed",
        "unsure",
        *(["verb_first", "verb_first", "unsure_verb_first"] if starts_with_verb else []),
    ]
    frame = rng.choice(side(asks.form("frames", rng.choice(kinds)), held_out))
    return frame.format(ask=request), (*used, frame)
