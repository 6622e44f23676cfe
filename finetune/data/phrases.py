"""Phrasing templates that fit every site, and the split that keeps some of them out of training.

What is said about an action stands in the site's models (`say`); here is what goes around it. A template is
held out by the hash of its text alone, so that the same words are on the same side everywhere: in the
starter's pretraining, in every fine-tune, and in evaluation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from random import Random

HELD_OUT_SHARE = 4  # one template in four
_SALT = "edgewright-split-4"
EMPTY_WORDS = frozenset("a an the my your our please kindly now just".split())

FRAMES = (  # around a request in any form
    "please, {}",
    "{} please",
    "{}, please",
    "hey, {}",
    "okay, {}",
    "hello, {}",
    "hi, {}",
    "so, {}",
    "now {}",
    "okay, now {}",
    "{} now",
    "{} right now",
    "{} right away",
    "{}, thanks",
    "{}, thank you",
    "hey there, {}",
    "all right, {}",
    "right, {}",
    "well, {}",
    "and now {}",
    "okay then, {}",
    "hi there, {}",
    "good morning, {}",
    "good evening, {}",
    "{} for me",
    "{}, will you",
    "{}, okay",
    "{} again",
    "yes, {}",
    "also, {}",
)
VERB_FRAMES = (  # around a request that starts with a verb
    "can you {}",
    "could you {}",
    "would you {}",
    "will you {}",
    "please {}",
    "go and {}",
    "can you please {}",
    "could you please {}",
    "would you please {}",
    "will you please {}",
    "I want you to {}",
    "I need you to {}",
    "I would like you to {}",
    "you can {}",
    "you should {}",
    "hey, can you {}",
    "hey, could you {}",
    "okay, please {}",
    "please go and {}",
    "can you now {}",
    "could you now {}",
    "it is time to {}",
    "you may {}",
    "can you go and {}",
    "could you go and {}",
    "do {}",
    "do please {}",
    "please do {}",
    "now please {}",
    "let us {}",
)
AND = (
    "{} and {}",
    "{}, {}",
    "{} and also {}",
    "{} and please {}",
    "{}, and {}",
    "{}, also {}",
    "{}, please also {}",
    "{} and, please, {}",
    "{}, and also {}",
    "{}, and please {}",
    "both {} and {}",
    "{} plus {}",
    "{}, plus {}",
    "{} and at the same time {}",
    "{} and {} too",
    "{}, and {} as well",
    "{}; {}",
    "{}. {}",
    "{}. also {}",
    "{} and besides {}",
    "{}, besides {}",
    "{} and in addition {}",
    "{}, in addition {}",
    "{}, {} too",
    "{} as well as {}",
    "two things: {} and {}",
    "I need two things: {} and {}",
    "do both: {} and {}",
    "{} and on top of that {}",
    "{} together with this: {}",
    "{} along with this: {}",
    "{}, and at the same time {}",
    "{} while you {}",
    "{}, and while you are at it {}",
    "not only {} but also {}",
    "{} & {}",
    "{} and likewise {}",
    "{} and moreover {}",
    "{} plus please {}",
    "both of these: {}, {}",
)
THEN = (
    "{} then {}",
    "{} and then {}",
    "first {} then {}",
    "first {}, then {}",
    "{}, then {}",
    "{} and after that {}",
    "{}, after that {}",
    "first {} and then {}",
    "{}, and then {}",
    "first {} and after that {}",
    "first {}, after that {}",
    "{}, and after that {}",
    "{} and when that is done {}",
    "{}, when done {}",
    "start with this: {}, then {}",
    "{}, next {}",
    "{} and next {}",
    "first {}, next {}",
    "first {}, and then {}",
    "{} first, then {}",
    "{} first and then {}",
    "{} first, after that {}",
    "{}; then {}",
    "{}. then {}",
    "{}. after that {}",
    "{}, afterwards {}",
    "{} and afterwards {}",
    "{} before you {}",
    "after you {}, {}",
    "{}, only then {}",
    "{} and only then {}",
    "{} followed by {}",
    "{}, followed by {}",
    "begin with this: {}, then {}",
    "as a first step {}, then {}",
    "step one: {}, step two: {}",
    "one: {}, two: {}",
    "{} and finally {}",
    "{} and as a second step {}",
    "to start {}, then {}",
    "{}, once that is done {}",
    "{} and once that is done {}",
    "{}, when finished {}",
    "{} first, {} second",
    "{} first, {} after that",
    "at first {}, then {}",
    "{} and later {}",
    "{}, later {}",
    "{} and thereafter {}",
    "{}, and as soon as it is done {}",
)
GROUPS = (  # around what must become of all devices of one tool
    "{verb} all {plural}",
    "{verb} all the {plural}",
    "{verb} every {singular}",
    "{verb} each {singular}",
    "{verb} the {plural}, all of them",
    "{verb} every one of the {plural}",
    "{verb} each of the {plural}",
    "{verb} all of the {plural}",
    "{verb} every single {singular}",
    "{verb} all {plural} here",
    "{verb} all the {plural} here",
    "{verb} every {singular} here",
    "all {plural}, {verb} them",
    "all the {plural}, {verb} them",
    "{verb} the {plural}, each of them",
    "{verb} the {plural}, every one",
    "{verb} all my {plural}",
    "{verb} all our {plural}",
    "for all {plural}: {verb} them",
    "{verb} any {singular} there is",
)
CHANGES = (  # a wish to set a property that leaves the value out
    "change the {property} of {device}",
    "change the {property} for {device}",
    "set the {property} for {device}",
    "alter the {property} of {device}",
    "another {property} for {device}",
    "a different {property} for {device}",
    "a new {property} for {device}",
    "give {device} another {property}",
    "give {device} a different {property}",
    "give {device} a new {property}",
    "set {device} to a different {property}",
    "set {device} to a new {property}",
    "put {device} at another {property}",
    "bring {device} to another {property}",
    "switch {device} to another {property}",
    "change {device} to another {property}",
    "{device} at another {property}",
    "{device} needs another {property}",
    "{device} needs a different {property}",
    "{device} should have another {property}",
    "{device} must get a new {property}",
    "{device}, set its {property}",
    "{device}, adjust its {property}",
    "{device}, another {property}",
    "the {property} of {device} must change",
    "the {property} of {device} should be different",
    "the {property} of {device} needs to change",
    "the {property} of {device} is not right, change it",
    "I want {device} at another {property}",
    "I want to set the {property} of {device}",
    "I want the {property} of {device} changed",
    "I would like to change the {property} of {device}",
    "I would like to adjust the {property} of {device}",
    "I need to set the {property} of {device}",
    "I need the {property} of {device} adjusted",
    "have the {property} of {device} changed",
    "let {device} have another {property}",
    "it is time for another {property} of {device}",
    "let us change the {property} of {device}",
    "choose another {property} for {device}",
)
FILLERS = (  # said anywhere in a request, and without any meaning for it
    *("just", "simply", "quickly", "kindly", "maybe", "perhaps", "actually", "really", "now", "then", "there", "here"),
    *("so", "well", "uh", "um", "hm", "oh", "ah", "dear", "buddy", "computer", "soon", "today", "tonight", "again"),
    *("finally", "directly", "thanks", "please", "okay", "too", "also", "for us", "for me", "if possible", "as always"),
    *("as usual", "you know", "I guess", "I think", "let me see", "one moment", "by the way", "when you can"),
    *(
        "it seems",
        "if you like",
        "at last",
        "at home",
        "at once",
        "like yesterday",
        "this time",
        "for once",
        "no hurry",
    ),
    *("my friend", "and thanks", "and thank you", "and quickly", "once and for all", "now and then", "and so on"),
)


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


def loosen(template: str, rng: Random) -> str:
    """Return a template with one or two fillers between its words: what is asked for stays, the form is new."""
    words = template.split(" ")
    for _ in range(rng.choice((1, 1, 2))):
        words.insert(rng.randrange(len(words) + 1), rng.choice(FILLERS))
    return " ".join(words)


def frame(request: str, rng: Random, held_out: bool) -> tuple[str, tuple[str, ...]]:
    """Put a polite frame around a request, or none; return the text and the frames used."""
    if rng.random() < 0.4:
        return request, ()
    starts_with_verb = request.split(" ")[0] in _VERBS
    frames = side(VERB_FRAMES if starts_with_verb and rng.random() < 0.6 else FRAMES, held_out)
    chosen = rng.choice(frames)
    return chosen.format(request), (chosen,)


_VERBS = frozenset(
    "turn switch put get have set dim make change bring open close shut lock unlock keep take move run start use let"
    " give stop pump water check tell power flip activate enable disable adjust pull secure release remove go"
    " end leave".split()
)


def punctuate(text: str, rng: Random) -> str:
    """Write a request as people type it: with or without a capital letter and a mark at the end."""
    if rng.random() < 0.5:
        text = text[:1].upper() + text[1:]
    is_question = text.lower().startswith(("is ", "what", "can ", "could ", "would ", "how", "do ", "are ", "who"))
    return text + rng.choice(["", "", "?" if is_question else "."])
