"""What counts as overruled, and that nothing but the rule decides the count: by scripted logits, place by place."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import pytest
from llguidance import LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from devices.errors import UnavailableError
from edge_agent.engine.decoding_loop import GRAM, DecodingLoop, NgramCache
from edge_agent.engine.engine import Completion, Limits, Request, StopReason
from edge_agent.grammar.grammar import Grammar, Known
from edge_agent.grammar.token_mask import Matcher, Vocabulary

WORDS = ["yes", "no", "kit", "kitchen", "kitchen light", "knife", " light", "on", "_door", "on_light"]
END, CALL = "<|end|>", "<call>"
PIECES = [bytes([byte]) for byte in range(256)] + [word.encode() for word in (*WORDS, END, CALL)]
ID_OF = {piece: number for number, piece in enumerate(PIECES)}
ALL_AT_ONCE = 10**6
ExportOptions = Callable[[int], Sequence[int]]  # tokens by place in the reply, the likeliest first


class _Pieces:
    """A tokenizer that takes the longest piece, as llguidance wants one."""

    eos_token_id, bos_token_id = ID_OF[END.encode()], None
    special_token_ids = (ID_OF[END.encode()], ID_OF[CALL.encode()])
    tokens = PIECES

    def __call__(self, text: bytes) -> list[int]:
        ids = []
        while text:
            longest = max((piece for piece in PIECES[:-2] if text.startswith(piece)), key=len)
            ids.append(ID_OF[longest])
            text = text[len(longest) :]
        return ids


PROMPT = _Pieces()(b"what then? ")


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(LLTokenizer(TokenizerWrapper(_Pieces())), len(PIECES))


@dataclass(frozen=True)
class How:
    """How a reply is worked out: nothing of it may change what is counted."""

    part: int = ALL_AT_ONCE  # tokens evaluated at once
    reused: int = 0  # tokens of the prompt that were evaluated before
    draft_tokens: int = 0


EVERY_WAY = [How(*how) for how in product((1, 2, 3, ALL_AT_ONCE), (0, 4, len(PROMPT) - 1), (0, 1, 5))]


@dataclass(frozen=True)
class _Model:
    """Wants what `options` says, each half as probable as the one before; has the logits of some indexes only."""

    options: ExportOptions
    start: int  # of index 0, in the reply
    has: range

    def likeliest(self, index: int, among: NDArray[np.intp] | None = None) -> int:
        assert index in self.has, "an engine has these logits only"
        wanted = self.options(self.start + index)
        if among is None:
            return wanted[0]
        assert (np.diff(among) > 0).all()
        allowed = set(among.tolist())
        return next(token for token in wanted if token in allowed)

    def log_probability(self, index: int, token: int) -> float:
        assert index in self.has
        return -math.log(2) * (1 + list(self.options(self.start + index)).index(token))


def work(
    vocabulary: Vocabulary,
    grammar: Grammar | None,
    options: ExportOptions,
    limit: int,
    how: How,
    ngrams: NgramCache,
) -> Completion:
    """Make a reply as an engine does, and hold each question and what is kept against the text so far."""
    request = Request("", grammar, Limits(limit))
    loop = DecodingLoop(request, PROMPT, how.reused, Matcher(vocabulary, grammar), how.draft_tokens, ngrams)
    evaluated = PROMPT[: how.reused]
    while loop.stop_reason is None:
        known, first, before = loop.pending + loop.draft, loop.first_wanted, len(evaluated)
        count = min(how.part, len(known))

        evaluated += known[: loop.take(count, _Model(options, before + 1 - len(PROMPT), range(first, count)))]
    completion = loop.completion(vocabulary.text_of)
    assert evaluated == [*PROMPT, *completion.token_ids][: len(evaluated)]
    return completion


@dataclass(frozen=True)
class Case:
    """`says` are the words that the model wants at each place of the reply, the likeliest first; None: do not ask."""

    lark: str
    says: tuple[tuple[str, ...] | None, ...]
    text: str
    overruled: int
    steps: int
    stop_reason: StopReason = "end_of_turn"
    limit: int = 50
    facts: tuple[tuple[str, str], ...] = ()

    def options(self, place: int) -> list[int]:
        words = self.says[place]
        assert words is not None, f"asked at place {place}"
        return [ID_OF[word.encode()] for word in words]


CHOICE, STRETCH = 'start: "yes" | "no"', 'start: "kitchen" ("yes" | "no")'
TWO_PIECES = 'start: "on_door" ("yes" | "no")'
TAIL = 'start: ("yes" | "no") " kitchen on_door"'
FREE, FACTS = "start: /[a-z:_ ]{0,20}/", (("kit", "on_door"),)
CASES = {
    "choice: allowed": Case(CHOICE, (("no",),), "no", 0, 1),
    "choice: part of what is allowed": Case(CHOICE, (("y",), None, None), "yes", 0, 1),
    "choice: forbidden": Case(CHOICE, (("knife", "on", "no"),), "no", 1, 1),
    "choice: the turn may not end": Case(CHOICE, ((END, "yes"),), "yes", 1, 1),
    "choice: no marker": Case(CHOICE, ((CALL, "yes"),), "yes", 1, 1),
    "forced: as the model says": Case(STRETCH, (("kitchen",), ("no",)), "kitchenno", 0, 1),
    "forced: other text": Case(STRETCH, (("knife",), ("no",)), "kitchenno", 1, 1),
    "forced: other text, and then forbidden": Case(STRETCH, (("knife",), ("kit", "no")), "kitchenno", 2, 1),
    "forced: a shorter piece": Case(STRETCH, (("kit",), ("no",)), "kitchenno", 0, 1),
    "forced: a piece that goes on behind it": Case(STRETCH, (("kitchen light",), ("no",)), "kitchenno", 0, 1),
    "forced: the turn may not end": Case(STRETCH, ((END,), ("no",)), "kitchenno", 1, 1),
    "forced: in two pieces": Case(TWO_PIECES, (("on",), ("_door",), ("no",)), "on_doorno", 0, 1),
    "forced: in smaller pieces": Case(TWO_PIECES, (("o",), ("_",), ("no",)), "on_doorno", 0, 1),
    "forced: other text in the second piece": Case(TWO_PIECES, (("on",), (" light",), ("no",)), "on_doorno", 1, 1),
    "forced: other text behind a piece": Case(TWO_PIECES, (("on_light",), ("_door",), ("no",)), "on_doorno", 1, 1),
    "forced: an end is not spelled": Case('start: "<" ("yes" | "no")', ((END,), ("no",)), "<no", 1, 1),
    "forced: a marker": Case(f'start: {CALL} ("yes" | "no")', ((CALL,), ("no",)), f"{CALL}no", 0, 1),
    "forced: a marker is not spelled": Case(f'start: {CALL} ("yes" | "no")', (("<",), ("no",)), f"{CALL}no", 1, 1),
    "forced: a fact": Case(
        FREE, (("kit",), (":",), ("on",), ("_",), (END,)), "kit:on_door", 0, 3, facts=FACTS
    ),
    "forced: another fact": Case(
        FREE, (("kit",), (":",), ("no",), ("_",), (END,)), "kit:on_door", 0, 3, facts=FACTS
    ),
    "end: forced after the last choice": Case(TAIL, (("yes",), None, None, None, None), "yes kitchen on_door", 0, 1),
    "end: all forced": Case('start: "kitchen on_door"', (None,) * 4, "kitchen on_door", 0, 0),
    "end: the model's": Case('start: "no" /!{0,2}/', (("no",), (END,)), "no", 0, 1),
    "end: may not go on": Case('start: "no" /!{0,2}/', (("no",), ("kit", END)), "no", 1, 1),
    "cut: in a stretch": Case(TAIL, (("knife", "yes"), None, None), "yes kitchen", 1, 1, "length", 3),
    "cut: in the first stretch": Case(TWO_PIECES, (None,), "on", 0, 0, "length", 1),
    "cut: at a choice": Case("start: /[a-z]{0,9}/", (("A", "n"), ("o",)), "no", 1, 2, "length", 2),
    "cut: not quite": Case(TAIL, (("yes",), None, None, None, None), "yes kitchen on_door", 0, 1, limit=6),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_counts_as_overruled(vocabulary: Vocabulary, case: Case) -> None:
    for how in EVERY_WAY:
        ngrams = NgramCache()
        if how.draft_tokens:  # guesses are right
            ngrams.note([*PROMPT[-GRAM:], *vocabulary.tokenizer.tokenize_str(case.text)])
        grammar = Grammar(case.lark + "\n", Known(case.facts))
        found = work(vocabulary, grammar, case.options, case.limit, how, ngrams)
        assert (found.text, found.stop_reason, found.overruled_tokens) == (
            case.text,
            case.stop_reason,
            case.overruled,
        ), how
        assert found.model_steps == case.steps or (how.draft_tokens and found.model_steps < case.steps), how


LONG = """start: head " " ("kitchen light" | "kitchen on" | "knife") tail{1,3}
head: "no " /[a-z]{2,4}/ | "yes"
tail: " on" ("_door" | "_light" | /[0-9]{1,3}/ " kitchen") /!{0,2}/
"""


def wishes_of(seed: int) -> ExportOptions:
    """A model that wants at each place what chance says, mostly pieces that this grammar has."""

    @cache
    def options(place: int) -> list[int]:
        chance = random.Random(f"{seed}-{place}")
        likely, rest = [ID_OF[word.encode()] for word in (*WORDS, END, *"! k1235ny")], list(range(len(PIECES)))
        chance.shuffle(likely)
        chance.shuffle(rest)
        return likely + rest

    return options


def by_the_rule(
    vocabulary: Vocabulary, options: ExportOptions, limit: int
) -> tuple[tuple[int, ...], int, tuple[float, ...]]:
    """Return a reply to LONG, its count and log probabilities, worked out one token at a time with but a matcher."""
    matcher, reply, count, places = Matcher(vocabulary, Grammar(LONG)), list[int](), 0, list[float]()
    while True:
        forced = matcher.take_forced()
        is_last = matcher.is_over or len(reply) + len(forced) >= limit
        for index in range(0 if is_last else len(forced)):
            count += vocabulary.spells_other(options(len(reply))[0], forced[index:])
            reply.append(forced[index])
        if is_last:
            return tuple((reply + forced)[:limit]), count, tuple(places)
        wanted, allowed = options(len(reply)), set(matcher.allowed().tolist())
        count += wanted[0] not in allowed
        token = next(one for one in wanted if one in allowed)
        places.append(-math.log(2) * (1 + list(wanted).index(token)))
        if not matcher.accept(token):
            return tuple(reply), count, tuple(places)
        reply.append(token)


def test_the_count_is_the_same_however_a_reply_is_worked_out(vocabulary: Vocabulary) -> None:
    ngrams, counts, steps = NgramCache(), set[int](), {0: 0, 1: 0, 5: 0}
    for seed in range(40):
        options, limit = wishes_of(seed), (8, 60)[seed % 2]
        reply, count, log_probabilities = by_the_rule(vocabulary, options, limit)
        counts.add(count)
        for how in EVERY_WAY:
            found = work(vocabulary, Grammar(LONG), options, limit, how, ngrams)
            assert (found.token_ids, found.overruled_tokens) == (reply, count), (seed, how)
            assert found.log_probabilities == log_probabilities, (seed, how)
            steps[how.draft_tokens] += found.model_steps
    assert len(counts) > 5 and steps[5] < steps[1] < steps[0]


def test_without_a_grammar_nothing_is_overruled(vocabulary: Vocabulary) -> None:
    case = Case("", (("knife",), ("on",), (CALL,), (END,)), f"knifeon{CALL}", 0, 4)
    for how in EVERY_WAY:
        found = work(vocabulary, None, case.options, 50, how, NgramCache())
        assert (found.text, found.overruled_tokens, found.forced_tokens) == (case.text, 0, 0)
        assert found.probability == pytest.approx(0.5**4)  # four tokens, the end among them


def test_a_place_where_no_token_may_come_is_an_error(vocabulary: Vocabulary) -> None:
    matcher = Matcher(vocabulary, Grammar(CHOICE + "\n"))
    loop = DecodingLoop(Request("", Grammar(CHOICE + "\n")), PROMPT, 0, matcher)
    matcher.mask[:] = 0
    with pytest.raises(UnavailableError, match="allows no token"):
        loop.take(len(PROMPT), _Model(lambda place: [0], 1 - len(PROMPT), range(len(PROMPT))))
