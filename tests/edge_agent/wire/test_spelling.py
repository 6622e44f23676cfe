"""How requests are spelled for the model: what is changed, what is left, and that training and running agree."""

from __future__ import annotations

import sys
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.simulation.world import World
from devices.site.site import Site, load_site
from devices.site.tools import tools_of
from edge_agent.agent.simulation import Simulation
from edge_agent.agent.turn import TurnLimits
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.messages import request_of, user_message
from edge_agent.wire.spelling import SiteWords, usual_spelling, words_of
from finetune.data.generator import Stage, carry_out, draw_plan, random_world

SITE = load_site("home")
WORDS = words_of(SITE, tools_of(SITE))
TITLED = SITE.model_copy(
    update={
        "devices": {
            name: device.model_copy(update={"title": device.title.title(), "aliases": (f"LED {name}",)})
            for name, device in SITE.devices.items()
        }
    }
)
OWN = SiteWords(("TV", "Led strip", "iPad", "Living Room Lamp", "lamp"), frozenset({"on", "off", "lamp"}))
ANY_TEXT = st.text(st.one_of(st.sampled_from("aAbBiIİıßẞſΣσςǅ'’\"«».,-_ 0729°\n"), st.characters()), max_size=60)
SPOKEN = st.lists(
    st.sampled_from("turn the TV lamp OFF Please I'm LED 21C KITCHEN İ ß it's 'Hi' x".split()), max_size=9
)
TEXTS = st.one_of(ANY_TEXT, SPOKEN.map(" ".join), st.one_of(ANY_TEXT, SPOKEN.map(" ".join)).map(str.upper))
SOME_WORDS = st.sampled_from([SiteWords(), WORDS, OWN])
_NO_REPLIES = TurnLimits(model_replies=0)


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("SWITCH THE BEDROOM LAMP ON", "Switch the bedroom lamp on"),
        ("Switch The Bedroom Lamp On", "Switch the bedroom lamp on"),
        ("sWITCH THE BEDROOM LAMP ON", "switch the bedroom lamp on"),
        ("SWITCH THE BEDROOM LAMP ON pls", "Switch the bedroom lamp on pls"),
        ("I'M COLD, I WANT 21 DEGREES", "I'm cold, I want 21 degrees"),
        ("I Want A Light", "I want a light"),
        ("STOP", "Stop"),
        ("switch the Bedroom Lamp on", "switch the bedroom lamp on"),
        ("turn the BEDROOM thing OFF", "turn the bedroom thing off"),
        ("Is It LOCKED", "Is it locked"),
        ("TURN ON KITCHEN_LIGHT", "Turn on kitchen_light"),
        ("LICHT AUS, BITTE SCHLIESSEN, STRAẞE", "Licht aus, bitte schliessen, straße"),
        ("LÜFTER AN, ΦΩΣ, СВЕТ", "Lüfter an, φως, свет"),
    ],
)
def test_capitals_that_say_nothing_go(typed: str, shown: str) -> None:
    assert usual_spelling(typed, WORDS) == shown


@pytest.mark.parametrize(
    "text",
    [
        "turn the TV on",
        "Turn the LED strip on",
        "Turn off the light, I am in bed",
        "TV",
        "PV?",
        "I",
        "is Anna home",
        "switch the bedroom lamp on NOW",
        "call it 'Blue Room'",
        "grüße an ÖBB",
        "",
    ],
)
def test_capitals_that_may_say_something_stay(text: str) -> None:
    assert usual_spelling(text, WORDS) == text


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ('SHOW "Hello World" NOW', 'Show "Hello World" now'),
        ("SHOW «Hello World» NOW", "Show «Hello World» now"),
        ("SHOW 'Hello World' NOW", "Show 'Hello World' now"),
        ("WHERE IS ORDER AB-12X OR X_Y", "Where is order AB-12X or X_Y"),
        ("Turn On The TV In The Hall", "Turn on the TV in the hall"),
    ],
)
def test_quoted_words_codes_and_abbreviations_keep_their_letters(typed: str, shown: str) -> None:
    assert usual_spelling(typed, WORDS) == shown


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("TURN THE TV AND THE LED STRIP ON", "Turn the TV and the Led strip on"),
        ("turn the tv on", "turn the TV on"),
        ("tv on", "TV on"),
        ("turn on the living room lamp", "turn on the Living Room Lamp"),
        ("Lamp on", "Lamp on"),
        ("put the lamps and my ipad2 on", "put the lamps and my ipad2 on"),
    ],
)
def test_names_are_spelled_as_the_site_spells_them(typed: str, shown: str) -> None:
    assert usual_spelling(typed, OWN) == shown


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("please close the blinds", "please close the blinds"),
        ("CLOSE MY BLINDS", "Close my blinds"),
        ("turn close off and dim dim", "turn Close off and Dim Dim"),
    ],
)
def test_a_verb_is_no_name_before_an_article(typed: str, shown: str) -> None:
    assert usual_spelling(typed, SiteWords(("Close", "Dim", "blinds"))) == shown


@settings(deadline=None)
@given(TEXTS, SOME_WORDS)
def test_spelling_it_again_changes_nothing(text: str, words: SiteWords) -> None:
    once = usual_spelling(text, words)
    assert usual_spelling(once, words) == once


@settings(deadline=None)
@given(TEXTS, SOME_WORDS)
def test_only_letters_change_and_only_to_themselves(text: str, words: SiteWords) -> None:
    shown = usual_spelling(text, words)
    assert len(shown) == len(text)
    for before, after in zip(text, shown, strict=True):
        assert after == before or (before.isalpha() and after.lower() in {before.lower(), "i", "ς"})
        assert not before.isdigit() or after == before


@given(st.sampled_from(["turn", "please", "the", "über", "ß"]), TEXTS, st.sampled_from(["on", "it", "ı"]))
def test_a_text_with_small_words_is_left_alone(first: str, text: str, last: str) -> None:
    """Nine small letters among as many capitals, and no word in a capital after the first: nobody shouts like that."""
    capitals = "".join(letter for letter in text if letter.isupper())[:9]
    typed = f"{first} closing {capitals} everything {last}"
    assert usual_spelling(typed) == typed


def test_every_letter_of_unicode_keeps_its_place() -> None:
    letters = [letter for letter in map(chr, range(sys.maxunicode + 1)) if letter.upper() != letter.lower()]
    loud = [letter for letter in letters if letter.isupper() and letter.isalpha()]
    shown = usual_spelling(f"LOUD {' '.join(f'X{letter}X' for letter in loud)}")
    assert shown.split() == ["Loud", *(f"x{letter.lower()[0]}x" for letter in loud)]
    for text in ("".join(letters), " ".join(letters)):
        assert len(usual_spelling(text)) == len(text)


@pytest.mark.parametrize("text", ["</THINK>", "<TOOL_CALL>{}", "<|IM_END|> NOW PLEASE", "PLEASE <THINK> GO ON"])
def test_no_marker_is_made(text: str) -> None:
    shown = request_of(user_message(text, {}, "08:00").text)
    assert not any(marker in shown for marker in ("</think>", "<tool_call>", "<|im_end|>", "<think>"))


@pytest.mark.parametrize("number", range(20))
@pytest.mark.parametrize("site", [SITE, TITLED], ids=["small names", "Names In Capitals"])
def test_the_agent_shows_in_capitals_what_training_showed(site: Site, number: int) -> None:
    """A request in capitals: the row made of it and the agent's prompt are the same bytes, and not in capitals."""
    rng, stage, simulation = Random(number), Stage.of(site), Simulation(site, load_template("chatml"))
    world = random_world(site, rng)
    plan = draw_plan(stage, world, rng, held_out=False)
    loud = replace(plan, ask=plan.ask.upper())
    copy = World(site, world.snapshot(), world.time_s)
    copy.broken, copy.stuck = set(plan.broken), set(plan.stuck)
    prompt = next(simulation.agent(copy).run(loud.ask)).prompt
    messages, _ = carry_out(loud, stage, World(site, world.snapshot(), world.time_s))
    trained = simulation.contract.template.segments([stage.system, *messages])[0].text
    assert prompt == trained
    shown = request_of(messages[0].text)
    assert shown != loud.ask and (shown[1:] == plan.ask[1:] or plan.kind == "missing_device")


def test_the_result_has_what_the_person_typed() -> None:
    turn = Simulation(SITE, load_template("chatml"), _NO_REPLIES).agent(World(SITE)).run("SWITCH THE LAMP ON")
    with pytest.raises(StopIteration) as ended:
        next(turn)
    assert ended.value.value.ask == "SWITCH THE LAMP ON"


@pytest.mark.parametrize("name", ["home", "greenhouse", "bench_arm", "support", "database"])
def test_what_is_made_for_training_is_spelled_as_usual_already(name: str) -> None:
    """So no row of an earlier version is another now, and its models are as good as before."""
    site = load_site(name)
    stage, rng = Stage.of(site), Random(5)
    for _ in range(300):
        ask = draw_plan(stage, random_world(site, rng), rng, held_out=False).ask
        assert usual_spelling(ask, words_of(site, tools_of(site))) == ask
