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
QUESTIONS_YES_NO = (
    "is {device} {label}",
    "is {device} {label} now",
    "is {device} {label} or not",
    "is {device} {label} right now",
    "is {device} still {label}",
    "tell me if {device} is {label}",
    "can you tell me if {device} is {label}",
    "could you tell me if {device} is {label}",
    "please tell me if {device} is {label}",
    "check if {device} is {label}",
    "can you check if {device} is {label}",
    "please check if {device} is {label}",
    "do you know if {device} is {label}",
    "I want to know if {device} is {label}",
    "I need to know if {device} is {label}",
    "I would like to know if {device} is {label}",
    "{device}, is it {label}",
    "is it right that {device} is {label}",
    "is it so that {device} is {label}",
    "see if {device} is {label}",
    "do you see if {device} is {label}",
    "look if {device} is {label}",
    "look and tell me if {device} is {label}",
    "tell me if {device} is still {label}",
    "check if {device} is still {label}",
)
QUESTIONS_VALUE = (
    "what is the {property} of {device}",
    "what is the {property} of {device} now",
    "what is the {property} of {device} right now",
    "what {property} does {device} have",
    "what {property} does {device} have now",
    "what does {device} have for {property}",
    "tell me the {property} of {device}",
    "can you tell me the {property} of {device}",
    "could you tell me the {property} of {device}",
    "please tell me the {property} of {device}",
    "{device} {property}",
    "do you know the {property} of {device}",
    "do you know what {property} {device} has",
    "I want to know the {property} of {device}",
    "I need to know the {property} of {device}",
    "I would like to know the {property} of {device}",
    "check the {property} of {device}",
    "can you check the {property} of {device}",
    "{device}, what is its {property}",
    "{device}, tell me its {property}",
    "which {property} does {device} have",
    "how much is the {property} of {device}",
)
QUESTIONS_STATUS = (
    "what is the state of {device}",
    "what is the state of {device} now",
    "what is the state of {device} right now",
    "how is {device}",
    "how is {device} now",
    "how is {device} doing",
    "tell me the state of {device}",
    "can you tell me the state of {device}",
    "please tell me the state of {device}",
    "state of {device}",
    "can you check {device}",
    "what about {device}",
    "and what about {device}",
    "tell me about {device}",
    "can you tell me about {device}",
    "check {device}",
    "check {device} for me",
    "I want to know the state of {device}",
    "I need to know the state of {device}",
    "check the state of {device}",
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
        "many, many thanks",
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
    "Goodbye.": (
        "bye",
        "goodbye",
        "okay, goodbye",
        "goodbye for now",
        "good night",
        "see you",
        "bye bye",
        "see you later",
        "okay, bye",
        "good night then",
    ),
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


def side(templates: Iterable[str], held_out: bool) -> list[str]:
    """Return the templates of one side of the split, in their order."""
    return [template for template in templates if is_held_out(template) == held_out]


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
