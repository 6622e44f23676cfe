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
_SALT = "edgewright-split-1"

FRAMES = (  # around a request in any form
    "please, {}",
    "{} please",
    "hey, {}",
    "okay, {}",
    "{} now",
    "{}, thanks",
    "hello, {}",
    "{} right now",
    "so, {}",
    "now {}",
    "{}, please",
    "okay, now {}",
)
VERB_FRAMES = (  # around a request that starts with a verb
    "can you {}",
    "could you {}",
    "would you {}",
    "please {}",
    "go and {}",
    "can you please {}",
    "I want you to {}",
    "I need you to {}",
    "could you please {}",
    "you can {}",
    "would you please {}",
    "hey, can you {}",
    "please go and {}",
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
)
GROUPS = (  # around what must become of all devices of one tool
    "{verb} all {plural}",
    "{verb} all the {plural}",
    "{verb} every {singular}",
    "all {plural}, {verb} them",
    "please {verb} all {plural}",
    "can you {verb} all the {plural}",
    "{verb} each {singular}",
    "{verb} the {plural}, all of them",
)
QUESTIONS_YES_NO = (
    "is {device} {label}",
    "is {device} {label} now",
    "tell me if {device} is {label}",
    "can you tell me if {device} is {label}",
    "check if {device} is {label}",
    "do you know if {device} is {label}",
    "I want to know if {device} is {label}",
    "can you check if {device} is {label}",
    "is {device} {label} or not",
    "{device}, is it {label}",
    "please tell me if {device} is {label}",
    "is it right that {device} is {label}",
)
QUESTIONS_VALUE = (
    "what is the {property} of {device}",
    "tell me the {property} of {device}",
    "{device} {property}",
    "can you tell me the {property} of {device}",
    "what {property} does {device} have",
    "do you know the {property} of {device}",
    "I want to know the {property} of {device}",
    "check the {property} of {device}",
    "what is the {property} of {device} now",
    "please tell me the {property} of {device}",
    "{device}, what is its {property}",
    "what does {device} have for {property}",
)
QUESTIONS_STATUS = (
    "what is the state of {device}",
    "how is {device}",
    "tell me the state of {device}",
    "state of {device}",
    "can you check {device}",
    "what about {device}",
    "tell me about {device}",
    "check {device}",
    "how is {device} now",
    "I want to know the state of {device}",
)
SMALL_TALK = {
    "Hello. What should I do?": (
        "hello",
        "hi",
        "hey",
        "good morning",
        "hi there",
        "hello there",
        "good evening",
        "hey there",
    ),
    "You are welcome.": (
        "thanks",
        "thank you",
        "thanks a lot",
        "thank you so much",
        "many thanks",
        "great, thanks",
        "thanks for that",
        "okay, thank you",
    ),
    "I control the devices here.": (
        "who are you",
        "what are you",
        "what can you do",
        "what do you do",
        "what do you do here",
        "can you tell me who you are",
        "tell me what you can do",
        "how can you help",
    ),
    "Goodbye.": ("bye", "goodbye", "good night", "see you", "bye bye", "see you later", "okay, bye", "good night then"),
    "I am well and ready.": (
        "how are you",
        "how are you today",
        "are you there",
        "are you ready",
        "how is it going",
        "are you okay",
        "you there",
        "how do you do",
    ),
    "I only control the devices here.": (
        "tell me a joke",
        "what is the weather",
        "write a poem",
        "who won the game",
        "sing a song",
        "what is the news",
        "play some music",
        "order a pizza",
        "tell me a story",
        "what is two plus two",
    ),
}


@cache
def is_held_out(template: str) -> bool:
    """Return whether a template is for evaluation only; names of arguments do not matter."""
    text = re.sub(r"{(?!device|label|property|verb|plural|singular)\w+}", "{value}", template)
    return hashlib.sha256(f"{_SALT}|{text}".encode()).digest()[0] % HELD_OUT_SHARE == 0


def side(templates: Iterable[str], held_out: bool) -> list[str]:
    """Return the templates of one side of the split, in their order."""
    return [template for template in templates if is_held_out(template) == held_out]


def frame(request: str, rng: Random, held_out: bool) -> tuple[str, tuple[str, ...]]:
    """Put a polite frame around a request, or none; return the text and the frames used."""
    if rng.random() < 0.45:
        return request, ()
    starts_with_verb = request.split(" ")[0] in _VERBS
    frames = side(VERB_FRAMES if starts_with_verb and rng.random() < 0.6 else FRAMES, held_out)
    chosen = rng.choice(frames)
    return chosen.format(request), (chosen,)


_VERBS = frozenset(
    "turn switch put get have set dim make change bring open close shut lock unlock keep take move run start use let"
    " give stop pump water check tell".split()
)


def punctuate(text: str, rng: Random) -> str:
    """Write a request as people type it: with or without a capital letter and a mark at the end."""
    if rng.random() < 0.5:
        text = text[:1].upper() + text[1:]
    is_question = text.lower().startswith(("is ", "what", "can ", "could ", "would ", "how", "do ", "are ", "who"))
    return text + rng.choice(["", "", "?" if is_question else "."])
