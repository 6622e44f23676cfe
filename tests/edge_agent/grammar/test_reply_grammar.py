"""The grammar lets every correct reply pass and nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer

from benchmarks.naming import load_requests
from devices.errors import UnavailableError, UsageError
from devices.simulation.world import World
from devices.site.schema import DataSchema
from devices.site.site import load_site
from devices.site.tools import Command, Tool, ToolCall, call_of, commands_of, tools_of
from edge_agent.agent.known import known_of
from edge_agent.agent.number_arguments import number_arguments, truths_of
from edge_agent.engine.llama_cpp_vocabulary import GrammarVocabulary, TokenTable
from edge_agent.grammar.grammar import Grammar, Known
from edge_agent.grammar.reply_grammar import reply_grammar
from edge_agent.grammar.thought_guide import NO_TARGET
from edge_agent.grammar.token_mask import TEXT_SLICES, Matcher, Vocabulary
from edge_agent.wire.markers import MARKERS
from edge_agent.wire.messages import Message, body_of, facts_of
from edge_agent.wire.parsing import Answer, ToolCalls, parse_reply
from finetune.pretraining.starter_model import train_tokenizer
from tests.den import den
from tests.home_with_areas import home_with_areas
from tests.made_vocabularies import NAMES
from tests.tiny_base import TINY_VOCABULARY, tiny_texts
from tests.vocabularies import Find, open_vocabulary

LEVEL = DataSchema(type="number", minimum=-5, maximum=28.5)
MODE = DataSchema(type="string", enum=("eco", "full power", "hé"))
MODE = MODE.model_copy(update={"enum": ("eco", "full power", 'say "hé"')})  # more than a site file may have
TOOLS = [
    *tools_of(home_with_areas()),
    Tool(
        "heater_set",
        "set",
        ("heater_1", "heater_2"),
        {"level_c": LEVEL, "mode": MODE, "is_loud": DataSchema(type="boolean")},
    ),
]
ARGUMENTS = {"device": "heater_1", "level_c": 21.5, "mode": 'say "hé"', "is_loud": False}


@pytest.fixture(scope="module")
def starter() -> Vocabulary:
    tokenizer = train_tokenizer(tiny_texts(), TINY_VOCABULARY)
    tokens = from_tokenizer(tokenizer, slices=TEXT_SLICES)
    return Vocabulary(tokens, len(tokenizer))


def accepts(vocabulary: Vocabulary, text: str, tools: list[Tool] = TOOLS) -> bool:
    """Whether the grammar takes the whole text, token by token, and lets the turn end there."""
    matcher = Matcher(vocabulary, reply_grammar(tools))
    ids = vocabulary.tokenizer.tokenize_str(text, parse_special=True)
    try:
        return all(matcher.accept(token) for token in ids) and not matcher.accept(vocabulary.tokenizer.eos_token)
    except UnavailableError:
        return False


def reply(*calls: ToolCall, text: str = "", thought: str = "The request names it.") -> str:
    return body_of(Message("assistant", text, thought, calls))


def heater(**changes: Any) -> str:
    return reply(ToolCall("heater_set", ARGUMENTS | changes))


def random_call(choices: random.Random) -> ToolCall:
    tool = choices.choice(TOOLS)
    arguments: dict[str, Any] = {"device": choices.choice(tool.devices)}
    for name, schema in tool.input.items():
        if schema.type == "boolean":
            arguments[name] = choices.random() < 0.5
        elif schema.type == "string":
            arguments[name] = choices.choice(schema.enum or ())
        else:
            assert schema.minimum is not None and schema.maximum is not None
            value = choices.uniform(schema.minimum, schema.maximum)
            step = schema.step or 0.1
            arguments[name] = int(value) if schema.type == "integer" else round(round(value / step) * step, 1) + 0.0
    return ToolCall(tool.name, arguments)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_correct_reply_is_accepted(starter: Vocabulary, seed: int) -> None:
    choices = random.Random(seed)
    calls = [random_call(choices) for _ in range(choices.randint(1, 12))]
    assert accepts(starter, reply(*calls))
    assert accepts(starter, reply(*calls, thought=""))
    assert accepts(starter, reply(text="Es ist 21.5 °C, „ja“ & 7 % mehr!"))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_the_grammar_allows_parses_and_fits_its_schema(starter: Vocabulary, seed: int) -> None:
    text = random_walk(starter, random.Random(seed))
    decision = parse_reply(text, TOOLS)
    assert isinstance(decision, ToolCalls | Answer), (text, decision)
    for call in decision.calls if isinstance(decision, ToolCalls) else ():
        tool = next(tool for tool in TOOLS if tool.name == call.name)
        jsonschema.validate(call.arguments, tool.json_schema())
        which = [key for key in call.arguments if key not in tool.input]
        assert list(call.arguments) == [*which, *tool.input]
        assert which in (["device"], ["area"], ["area", "except"]) if tool.targets else ["device"]
        for name, value in call.arguments.items():
            assert not isinstance(value, float) or round(value, 1) == value, name


def random_walk(vocabulary: Vocabulary, choices: random.Random) -> str:
    """Return a reply made of random allowed tokens; markers are favoured, so that thoughts end and calls come."""
    matcher = Matcher(vocabulary, reply_grammar(TOOLS))
    end = vocabulary.tokenizer.eos_token
    text: list[int] = []
    while True:
        text += matcher.take_forced()
        if matcher.is_over:
            break
        allowed = [int(token) for token in matcher.allowed()]
        special = [token for token in allowed if vocabulary.tokenizer.is_special_token(token)]
        token = choices.choice(special if special and choices.random() < 0.4 else allowed)
        if not matcher.accept(token):
            assert token == end
            break
        text.append(token)
    return vocabulary.text_of(text)


@pytest.mark.parametrize("level_c", [-5, 28, 28.5, 0.5, -0.5, 10.0, 9])
def test_numbers_in_range_are_accepted(starter: Vocabulary, level_c: float) -> None:
    assert accepts(starter, heater(level_c=level_c))


@pytest.mark.parametrize("changes", [
    {"level_c": -5.1}, {"level_c": 28.6}, {"level_c": 300}, {"level_c": 21.25}, {"level_c": True}, {"level_c": "21"},
    {"device": "heater_3"}, {"device": "kitchen_light"}, {"mode": "max"}, {"is_loud": 1}, {"extra": 1},
], ids=str)  # fmt: skip
def test_wrong_arguments_are_impossible(starter: Vocabulary, changes: dict[str, Any]) -> None:
    assert accepts(starter, heater())
    assert not accepts(starter, heater(**changes))


@pytest.mark.parametrize(
    ("schema", "fits", "fails"),
    [
        (DataSchema(type="number", minimum=5, maximum=30, step=0.5), [5, 20.5, 30], [20.3, 4.5, 30.5]),
        (DataSchema(type="number", minimum=0, maximum=2, step=0.25), [0.5, 2], [0.2, 0.3]),  # 0.25 cannot be written
        (DataSchema(type="integer", minimum=0, maximum=100, step=5), [0, 35], [36, 105]),
    ],
)
def test_numbers_come_in_the_steps_of_the_device(
    starter: Vocabulary, schema: DataSchema, fits: list[float], fails: list[float]
) -> None:
    tools = [Tool("trv_set", "set", ("trv",), {"level": schema})]
    for level in [*fits, *fails]:
        text = reply(ToolCall("trv_set", {"device": "trv", "level": level}))
        assert accepts(starter, text, tools) == (level in fits), level


@pytest.mark.parametrize(("old", "new"), [
    (":", ": "), (",", ", "), ("heater_set", "heater_sat"), ("21.5", "2.15e1"), ("21.5", "021.5"), ("}}", ' }}'),
    ('"device":"heater_1",', ""), ("</think>", "</think> "), ("<think>", ""), ("</tool_call>", "</tool_call> "),
    ("</tool_call>", "</tool_call>Done."), ("The", "<The"), ("The", "\n"), ("false", "False"),
])  # fmt: skip
def test_other_spellings_are_impossible(starter: Vocabulary, old: str, new: str) -> None:
    assert not accepts(starter, heater().replace(old, new))


def test_integers_have_no_point_and_calls_an_end(starter: Vocabulary) -> None:
    dim = ToolCall("light_brightness", {"device": "bedroom_lamp", "brightness": 100})
    assert accepts(starter, reply(*[dim] * 12))
    assert not accepts(starter, reply(*[dim] * 13))
    assert not accepts(starter, reply(dim).replace("100", "101"))
    assert not accepts(starter, reply(dim).replace("100", "10.0"))
    assert not accepts(starter, reply(dim).replace("100", "-1"))


def test_a_scene_is_one_of_the_site_and_nothing_beside_it(starter: Vocabulary) -> None:
    tools = tools_of(den())
    assert accepts(starter, reply(ToolCall("scene_turn_on", {"scene": "bedtime"})), tools)
    wrong: list[dict[str, Any]] = [{"scene": "party"}, {"device": "lamp"}, {"scene": "bedtime", "device": "lamp"}, {}]
    for arguments in wrong:
        assert not accepts(starter, reply(ToolCall("scene_turn_on", arguments)), tools), arguments


def test_without_tools_only_an_answer_is_possible(starter: Vocabulary) -> None:
    assert accepts(starter, reply(text="It is on."), tools=[])
    assert not accepts(starter, heater(), tools=[])
    assert not accepts(starter, reply(text=" "), tools=[])


def test_markers_must_be_the_tokens_where_the_vocabulary_has_them(starter: Vocabulary) -> None:
    assert starter.marker_tokens == frozenset(MARKERS)
    matcher = Matcher(starter, reply_grammar(TOOLS))
    first_character = starter.tokenizer.tokenize_str("<")[0]
    with pytest.raises(UnavailableError, match="the grammar failed"):
        matcher.accept(first_character)


def test_a_grammar_fits_any_vocabulary() -> None:
    tokens = reply_grammar(TOOLS)
    plain = tokens.for_vocabulary(())
    assert '\nthink: "<think>"\n' in plain.lark and plain.for_vocabulary(MARKERS) == tokens != plain
    mixed = plain.for_vocabulary({"<tool_call>", "</tool_call>"}).lark
    assert "\nopen_call: <tool_call>\n" in mixed and '\nthink: "<think>"\n' in mixed


STOCK = [pytest.param(("made", name), id=f"made-{name}") for name in NAMES]
STOCK += [pytest.param(("published", name), id=f"published-{name}") for name in ("phi-3", "llama-spm")]
STOCK += [
    pytest.param(("published", name), id=f"published-{name}", marks=pytest.mark.slow)  # over 100,000 tokens
    for name in ("llama-bpe", "qwen2")
]


@pytest.fixture(scope="module", params=STOCK)
def stock(request: pytest.FixtureRequest, vocabularies: Find) -> Iterator[Vocabulary]:
    source, name = request.param
    with open_vocabulary(vocabularies(source), name) as vocab:
        first, second = GrammarVocabulary(), GrammarVocabulary()
        first.loaded(vocab)
        made, table = first.make()
        kept, again = second.make(TokenTable.unpack(memoryview(table.pack())))  # it does not wait for the model
        assert again == table and table.probes
        second.loaded(vocab)
        for text in ("turn it on", " <think> brightness=40", "\x01", "äöü 中"):
            assert made.tokenizer.tokenize_str(text) == kept.tokenizer.tokenize_str(text)
        yield kept


def test_stock_vocabularies_spell_the_markers(stock: Vocabulary) -> None:
    assert stock.marker_tokens == frozenset()
    dim = ToolCall("light_brightness", {"device": "bedroom_lamp", "brightness": 40})
    assert accepts(stock, heater()) and accepts(stock, reply(dim, dim)) and accepts(stock, reply(text="It is on."))
    assert not accepts(stock, heater(level_c=29)) and not accepts(stock, reply(dim).replace("40", "101"))
    cited = after(stock, "<think> heating is hall_thermostat:", citing())
    assert cited == " target_c=18 temperature_c=26.6"
    text = random_walk(stock, random.Random(7))
    assert isinstance(parse_reply(text, TOOLS), ToolCalls | Answer)


def unchecked(**fields: Any) -> DataSchema:
    return DataSchema.model_construct(**({"minimum": None, "maximum": None, "enum": None, "unit": ""} | fields))


@pytest.mark.parametrize(("schema", "names"), [
    (unchecked(type="array"), "type 'array'"),
    (unchecked(type="string"), "needs 'enum'"),
    (unchecked(type="integer", minimum=1), "needs 'maximum'"),
    (unchecked(type="boolean", enum=("a",)), "cannot enforce 'enum'"),
    (unchecked(type="integer", minimum=5, maximum=1), "cannot be built"),
    (unchecked(type="string", enum=("a</tool_call>",)), "marker"),
])  # fmt: skip
def test_what_cannot_be_enforced_is_refused(schema: DataSchema, names: str) -> None:
    with pytest.raises(UsageError, match=names):
        reply_grammar([Tool("pump_set", "set", ("pump",), {"level": schema})])


@pytest.mark.parametrize("tools", [
    [Tool("a", "a", (), {})],
    [Tool("a", "a", ("d",), {}), Tool("a", "b", ("d",), {})],
    [Tool("a", "a", ("d",), {"device": MODE})],
])  # fmt: skip
def test_tools_that_make_no_sense_are_refused(tools: list[Tool]) -> None:
    with pytest.raises(UsageError):
        reply_grammar(tools)


STATE: dict[str, dict[str, bool | int | float | str]] = {
    "kitchen_light": {"on": True, "brightness": 40},
    "hall_thermostat": {"target_c": 18, "temperature_c": 26.6},
    "light": {"on": False},
    "well_pump": {},
}


def citing() -> Grammar:
    return reply_grammar(TOOLS).knowing(Known(tuple(facts_of(STATE))))


def after(vocabulary: Vocabulary, text: str, grammar: Grammar) -> str:
    """Return what is forced after a text."""
    matcher = Matcher(vocabulary, grammar)
    said, forced = "", matcher.take_forced()
    for token in vocabulary.tokenizer.tokenize_str(text, parse_special=True)[len(forced) :]:
        said += vocabulary.text_of(matcher.take_forced())
        matcher.accept(token)
    return vocabulary.text_of(matcher.take_forced())


@pytest.mark.parametrize(
    ("thought", "forced"),
    [
        (" heating is hall_thermostat:", " target_c=18 temperature_c=26.6"),
        (" light in the kitchen is kitchen_light:", " on=true brightness=40"),
        (" it is light:", " on=false"),
        (" the pump is well_pump:", " unavailable"),
        (" it is other_light:", ""),
        (" kitchen_light, light_brightness brightness=40, brightness:", ""),
        (" kitchen_light", ""),
        (" " + "x" * 375 + " kitchen_light:", ""),  # no room is left for it
    ],
)
def test_a_thought_that_names_a_device_goes_on_as_the_state_has_it(
    starter: Vocabulary, thought: str, forced: str
) -> None:
    grammar = citing()
    assert after(starter, "<think>" + thought, grammar) == forced
    assert after(starter, "<think>" + thought, reply_grammar(TOOLS)) == ""


DIM = " a bit more: lamp is kitchen_light: on=true brightness=40, light_brightness brightness="


@pytest.mark.parametrize(
    ("thought", "forced"),
    [
        (DIM, "50, brightness: 0..100 percent"),
        (DIM.replace("a bit more", "7 less"), "33, brightness: 0..100 percent"),
        (DIM.replace("a bit more", "90 more"), "100, brightness: 0..100 percent"),
        (DIM.replace("a bit more", "a third"), "33, brightness: 0..100 percent"),
        (DIM.replace("a bit more", "half of it"), "20, brightness: 0..100 percent"),
        (DIM.replace("a bit more", "a question"), ""),
        (DIM.replace("is kitchen_light", "is other_light"), ""),
        (" lamp is kitchen_light, light_brightness brightness=50, brightness:", " 0..100 percent"),
        (" lamp is kitchen_light, light_brightness brightness=140, brightness:", " 0..100 percent, above."),
        (" lamp is kitchen_light, light_brightness brightness=-4, brightness:", " 0..100 percent, below."),
        (" lamp is kitchen_light, light_brightness brightness=140, target_c:", ""),
        (" lamp is kitchen_light, climate_set brightness=140, brightness:", ""),
    ],
)
def test_numbers_of_the_state_are_reckoned_for_a_thought(starter: Vocabulary, thought: str, forced: str) -> None:
    site = home_with_areas()
    numbers = number_arguments(site, tools_of(site), STATE)
    assert after(starter, "<think>" + thought, reply_grammar(TOOLS).knowing(Known(numbers=tuple(numbers)))) == forced


TANK = " if: rain tank is rain_tank: level_pct=12 dry=false, "


@pytest.mark.parametrize(
    ("thought", "forced"),
    [
        (TANK + "level_pct below 20:", " yes"),
        (TANK + "level_pct above 20:", " no"),
        (TANK + "level_pct above 12:", " no"),
        (TANK + "level_pct below 12:", " no"),
        (TANK + "level_pct below 12.5:", " yes"),
        (TANK + "moisture_pct below 20:", ""),
        (TANK.replace(" if:", " unless:") + "level_pct below 20:", " yes"),
        (TANK.replace(" if:", " if or else:") + "not dry:", " yes"),
        (TANK.replace(" if:", " only if:") + "dry:", " no"),
        (TANK.replace("is rain_tank", "is other_tank") + "dry:", ""),
        (TANK.replace(" if:", " a question:") + "level_pct below 20:", ""),
    ],
)
def test_what_a_condition_hangs_on_is_reckoned_for_a_thought(starter: Vocabulary, thought: str, forced: str) -> None:
    truths = [("rain_tank", "dry", "no"), ("rain_tank", "not dry", "yes")]
    assert after(starter, "<think>" + thought, reply_grammar(TOOLS).knowing(Known(truths=tuple(truths)))) == forced


def test_truths_are_of_the_words_that_thoughts_have() -> None:
    site = load_site("home")
    state = {"kitchen_light": {"on": True, "brightness": 3}, "hall_motion": {"motion": False}, "gone": {"on": True}}
    assert set(truths_of(site, state)) == {  # type: ignore[arg-type]
        ("kitchen_light", "on", "yes"),
        ("kitchen_light", "off", "no"),
        ("hall_motion", "seeing motion", "no"),
        ("hall_motion", "seeing no motion", "yes"),
    }


def test_after_the_thought_nothing_is_forced_by_the_state(starter: Vocabulary) -> None:
    grammar = citing()
    assert after(starter, "<think> Hm.</think>It is kitchen_light:", grammar) == ""


@pytest.mark.parametrize("values", ["on=true brightness=40", "on=true brightness=4", "on=false brightness=40"])
def test_a_reply_with_other_values_is_not_what_the_grammar_gives(starter: Vocabulary, values: str) -> None:
    text = f"<think> lamp is kitchen_light: {values}.</think>It is so."
    ids = starter.tokenizer.tokenize_str(text, parse_special=True)
    assert starter.would_give(reply_grammar(TOOLS), ids)
    assert starter.would_give(citing(), ids) == (values == "on=true brightness=40")


def test_only_what_the_site_has_may_be_said(starter: Vocabulary) -> None:
    """Token by token: of all devices, those whose beginning was said; then the grammar alone."""
    site = load_site("home")
    grammar = reply_grammar(TOOLS).knowing(known_of(site, tools_of(site), World(site).snapshot(), {}))
    rng, names = random.Random(1), (*(f" {name}" for name in site.devices), *NO_TARGET)
    for _ in range(20):
        matcher = Matcher(starter, grammar)
        matcher.take_forced()
        for token in starter.tokenizer.tokenize_str(" cellar thing is"):
            matcher.accept(token)
        said = starter.text_of(matcher.take_forced())
        while matcher.is_narrowed and not said.startswith(names):
            token = int(rng.choice(matcher.allowed()))
            matcher.accept(token)
            said += starter.text_of([token, *matcher.take_forced()])
        assert said.startswith(names), said


def test_a_mark_that_was_forced_comes_as_one_token_with_what_follows(stock: Vocabulary) -> None:
    site = load_site("home")
    grammar = reply_grammar(tools_of(site)).knowing(known_of(site, tools_of(site), World(site).snapshot(), {}))
    matcher, text = Matcher(stock, grammar), "<think> heating is hall_thermostat, climate_set target_c=21, target_c:"
    said = len(stock.text_of(matcher.take_forced()))
    for token in stock.tokenizer.tokenize_str(text[said:]):
        matcher.accept(token)
        matcher.take_forced()
    may_come = {stock.text_of([int(token)]) for token in matcher.allowed()}
    assert matcher.is_narrowed and may_come <= {")", ").", ");"} and ")." in may_come


def test_a_grammar_error_never_means_free_text(starter: Vocabulary) -> None:
    with pytest.raises(UnavailableError, match="unknown special token"):
        Matcher(starter, Grammar("start: <nothing>\n"))


def test_llguidance_would_ignore_what_we_refuse() -> None:
    lark = 'start: %json {"type": "string", "contentEncoding": "base64"}'
    assert not LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(lark))


def test_devices_with_near_names_in_other_scripts_or_called_like_verbs_are_told_apart(starter: Vocabulary) -> None:
    """A thought may name each as people do and is held to its line of the state; a command has one call."""
    for site in {asked.site.name: asked.site for asked in load_requests()}.values():
        tools, facts = tools_of(site), facts_of(World(site).snapshot())
        assert len({tool.name for tool in tools}) == len(tools)
        commands = [
            Command(
                device.name, name, {key: schema.enum[0] if schema.enum else 1 for key, schema in action.input.items()}
            )
            for device in site.devices.values()
            for name, action in device.actions.items()
        ]
        for command in commands:
            (tool,) = (one for one in tools if one.action == command.action and command.device in one.devices)
            assert (
                commands_of(call_of(command, tools), tools) == [command] and call_of(command, tools).name == tool.name
            )
        for command in random.Random(1).sample(commands, 6):
            thought = f"{site.devices[command.device].title} is {command.device}:{dict(facts)[command.device]}"
            text = reply(call_of(command, tools), thought=thought)
            assert accepts(starter, text, tools), text
            assert parse_reply(text, tools) == ToolCalls(thought, (call_of(command, tools),))
            named, forced = f"<think> {thought.split(':')[0]}:", thought.split(":", 1)[1]
            assert after(starter, named, reply_grammar(tools).knowing(Known(tuple(facts)))) in (forced, forced[:-1])
