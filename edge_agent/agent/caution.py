"""Words in a request that speak against doing what the model proposes: for later, a no, an exception, a question.

A small model now and then does at once what was to be left alone. Where the plain words of a request say so, the agent
asks back in the place of acting. The words are English; in other languages nothing is found, and nothing is asked.

Does not guard against: what no word says ("the garage stays shut"), or a no that is far from what it is about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

_COUNT = "a|an|one|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|twenty|thirty|forty|sixty|half an|a few"
_HOUR = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:1?\\d|2[0-4])(?!\\d)"
_WHEN = "at|around|after|before|by|until|till"
_LATER = re.compile(
    "|".join(
        (
            rf"\bin (?:about |roughly |exactly )?(?:{_COUNT}|\d+)[ -](?:second|sec|minute|min|hour|day|week)s?\b",
            rf"\b(?:{_WHEN}) (?:{_HOUR}) ?(?:o'?clock|[ap]\.?m\b|tonight|tomorrow|in the (?:morning|evening))",
            rf"\b(?:{_WHEN}) (?:\d{{1,2}}:\d\d|noon|midnight|half past|quarter (?:to|past)|dawn|dusk|sunrise|sunset)\b",
            r"\btomorrow\b|(?<!you )(?<!and )\blater\b|\bevery (?:day|night|morning|evening|week\w*)\b",
            r"\bnext (?:week|time|month)\b",
            r"\bwhen (?:i|we|you|he|she|they|everyone|the \w+|my \w+)\b",
            r"\bafter (?:dinner|lunch|breakfast|work|school|dark|supper|tea|bedtime|the|my|we|i)\b",
            r"\b(?:mon|tues|wednes|thurs|fri|satur|sun)days?\b|\b(?:mornings|evenings|weekends)\b",
            rf"\b(?:on|off|out|open|closed?|shut|locked?|down|up) at (?:{_HOUR})(?=[.,;!?]|$)",
            r"\bwake (?:me|us|him|her)\b",
            r"\bif (?:some|any)(?:one|body) (?:\w+ )?(?:comes|rings|knocks|arrives|walks|calls|wakes|enters|gets)\b",
            r"\b(?:as soon as|whenever|(?:every|each) time|from now on)\b|\bonce (?:i|we)\b",
        )
    ),
    re.IGNORECASE,
)
_END = r"(?=\b(?:but|then|instead|because|since)\b|[.;,!?]|$)"
_NOT = r"do ?n'?t|do not|never|no need to|should ?n'?t|must ?n'?t"
_SAID_OTHERWISE = r"forget|worry|mind|want|need|like|care|know|think|you|we|i\b|hesitate|wait|have|ask|suppose|leave"
_BUT = "except|apart from|other than|excluding|but not|everything but|all but|not the"
_SPANS = [  # what a no, or an exception, is about
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b(?:{_NOT})\s+(?!{_SAID_OTHERWISE})(.*?){_END}",
        rf"\b(?:nobody|no one) (?:asked|told|wants?|wanted|needs?|touch\w*|moves?|opens?|turns?)\b(.*?){_END}",
        rf"\bnot yet\b(.*?){_END}",
        rf"\brather (?:you |we )?(?:not|did ?n'?t|do ?n'?t)\b(.*?){_END}",
        rf"\bno (?!longer)(?:more )?(?:\w+ing)\b(.*?){_END}",
        rf"\b(?:{_BUT})\b(.*?){_END}",
        r"\bleave\b(.*?)\b(?:alone|be|as (?:it|they) (?:is|are))\b",
        r"\b(?:keep|leave)\b(.*?)\bas (?:it|they) (?:is|are)\b",
    )
]
_HAVE = r"have (?:i|we|you|they|(?:the|my) \w+) (?:left|forgotten|been|got)"
_IS = r"is (?!it (?:possible|time)|there any chance)|are|was|were|did|does|has"
_HOW = "how (?:warm|cold|hot|high|low|full|wet|dry|bright|fast|many|much|long)"
_QUESTION = re.compile(
    r"\W*(?:so |and |hey |tell me |do you know )?"
    rf"(?:{_HAVE}|{_IS}|what'?s|what is|what are|which|who|{_HOW}|where|when did|why(?! (?:don'?t|not)\b)|how come"
    r"|should (?:i|we)|do (?:i|we)|am i)\b",
    re.IGNORECASE,
)
_LOOKS = re.compile(
    r"(?:^|[,.;] ?)(?:hey |please |just |quickly |go |and |can you |could you |would you )*"
    r"(?:check|(?:have a )?look|see|find out|tell me|let me know|i wonder|(?:i'?m )?not sure|i don'?t know)"
    r"(?: for me)? (?:if|whether)\b(?! (?:you|we) (?:can|could)\b)",
    re.IGNORECASE,
)
_ACTS = re.compile(
    r"\b(?:turn|switch|put|set|open|close|shut|lock|unlock|dim|start|stop|run|water|make)\b", re.IGNORECASE
)
_GOES_ON = re.compile(  # with what may be a wish
    rf"[,;:.?!](?=.*(?:\d|{_ACTS.pattern}|\b(?:on|off|up|down|out|lights?|\w+er)\b))"
    r"|\b(?:and|then|if|so|but|please)\b",
    re.IGNORECASE,
)
_OBJECT = re.compile(  # what a request names after its verb
    r"\b(?:turn|switch|put|set|open|close|shut|lock|unlock|start|stop|run|dim|water|kill|raise|lower|arm)\s+"
    r"(?:(?:on|off|up|down|out)\s+)?(?:the|my|our|a|an)\s+((?:[\w'’-]+\s*){1,4})",
    re.IGNORECASE,
)
_NO_DEVICE = re.compile(  # what other assistants have
    r"\b(timers?|reminders?|remind|stopwatch|podcasts?|playlists?)\b", re.IGNORECASE
)
_OF_ELSEWHERE = re.compile(  # a thing of a place or of somebody: "back door", "shed door", "the Petersons' garage"
    r"\b(back|side|cellar|basement|attic|loft|shed|barn|greenhouse|stable|office|study|nursery|pantry|laundry|utility|dining"
    r"|conservatory|balcony|terrace|patio|car|fridge|freezer|oven|cupboard|wardrobe|ceiling|church|school|shop|neighbou?rs?"
    r"|\w+['’]s|\w+s['’])\s+(?:old |new |big |little |small )?(\w+)",
    re.IGNORECASE,
)
_IS_SHORT = frozenset("it that what there here he she who how where let today tonight everything everyone one".split())
_ENDS_OBJECT = frozenset(
    "on off up down in at to for of from out please and by with now again back over so because".split()
)
_ANYTHING = frozenset(  # names no thing by itself
    "light lamp heat heating temperature warmth water air power door house home place room thing one rest same level"
    " setting brightness speed volume value bit little lot fire".split()
)
Words = Callable[[str, str], Collection[str]]  # words of a text that name a device: device, text


def is_for_later(ask: str) -> bool:
    """Return whether a request has words for another time than now."""
    return bool(_LATER.search(ask))


def begins_as_question(ask: str) -> bool:
    """Return whether a request begins as a question about the state, or as a wish to look."""
    return bool(_QUESTION.match(ask) or _LOOKS.match(ask))


def speaks_against(
    ask: str, devices: Collection[str], known: Collection[str], words: Words, put_back: Collection[str] = ()
) -> bool:
    """Return whether the words of a request speak against doing something to devices now.

    Args:
        ask: the request.
        devices: what is proposed to be moved.
        known: all devices of the site.
        words: which words of a text name a device.
        put_back: devices that are made again what they were before the last request: "not the porch" wants just that.
    """
    if is_for_later(ask):
        return True
    first = _QUESTION.match(ask) or _LOOKS.search(ask)
    if first and not _ACTS.search(ask[: first.start()]) and not _GOES_ON.search(ask[first.end() :].rstrip("?!. ")):
        return True

    def is_named(device: str, text: str) -> bool:
        """Return whether a text names a device, and no other one better."""
        own = frozenset(words(device, text))
        return bool(own) and not any(own < frozenset(words(other, text)) for other in known)

    for pattern in _SPANS:
        for found in pattern.finditer(ask):
            outside = f"{ask[: found.start()]} {ask[found.end() :]}"
            if any(is_named(one, found[1]) and not words(one, outside) for one in devices if one not in put_back):
                return True
    return False


def names_another(ask: str, devices: Collection[str], known: Collection[str], words: Words) -> bool:
    """Return whether a request names a thing that no device is, while a device is proposed of which it has no word.

    Args:
        ask: the request.
        devices: what is proposed to be moved.
        known: words of the names of all devices, and for what those are, in small letters and without a plural's s.
        words: which words of a text name a device.
    """
    if all(words(device, ask) for device in devices):
        return False
    if any(word.casefold().removesuffix("s") not in known for word in _NO_DEVICE.findall(ask)):
        return True
    for found in _OBJECT.finditer(ask):
        said = found[1].casefold().split()
        end = next((place for place, word in enumerate(said) if word in _ENDS_OBJECT), len(said))
        nouns = {word.removesuffix("s") for word in said[:end]}
        if nouns and nouns.isdisjoint(_ANYTHING) and nouns.isdisjoint(known):
            return True
    return False


def is_of_elsewhere(ask: str, devices: Collection[str], known: Collection[str], words: Words) -> bool:
    """Return whether a proposed device is named by a word alone that stands for a thing of elsewhere: "back door".

    Args: as names_another.
    """
    for place, noun in _OF_ELSEWHERE.findall(ask.casefold()):
        owner = re.sub(r"['’]s$|s['’]$|s$", "", place)
        is_thing = noun.removesuffix("s") in known and owner not in known and owner not in _IS_SHORT
        if is_thing and any(
            {word for word in words(one, ask) if not _ACTS.fullmatch(word)} <= {noun} for one in devices
        ):
            return True
    return False
