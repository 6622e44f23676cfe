"""What every engine does, on the same tiny random weights: llama.cpp from F16, Hugging Face in fp32."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devices.errors import UnavailableError, UsageError
from devices.simulator import World
from devices.site import load_site
from edge_agent.engine import Completion, Engine, Limits, Request, common_length
from edge_agent.engine_process import EngineProcess, EngineSettings
from edge_agent.evaluation import run_cases
from edge_agent.gguf_header import BadGguf
from edge_agent.grammar import reply_grammar
from edge_agent.grammar_text import Grammar
from edge_agent.llama_engine import LlamaEngine
from edge_agent.simulated import evaluation_simulation
from edge_agent.tuning import Tuning
from edge_agent.wire import Answer, Message, ToolCalls, contract_of, load_template, parse_reply, user_message
from export.convert import convert
from finetune.conversations import generate_cases
from finetune.huggingface_engine import HuggingFaceEngine
from finetune.recipe import STARTER_FOLDER
from tests.tiny_base import make_tiny_base, make_tiny_run

# peft 0.21 reads the older name of a property of transformers 5.23
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
SITE = load_site("home")
TEMPLATE = load_template("chatml")
CONTRACT = contract_of(SITE, TEMPLATE)
SYSTEM = Message("system", CONTRACT.system_text)
ASKS = ("turn on the kitchen light", "is the front door locked?", "water the garden for 5 minutes", "hi")


@dataclass(frozen=True)
class Files:
    base: Path
    gguf: Path
    adapter: Path
    merged_gguf: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tiny")
    base = make_tiny_base(folder / "base")
    adapter = make_tiny_run(folder / "run", base) / "adapter"
    gguf, merged = folder / "base.gguf", folder / "merged.gguf"
    convert(base, None, gguf, template=TEMPLATE, name="tiny", metadata={})
    convert(base, adapter, merged, template=TEMPLATE, name="tiny", metadata={})
    return Files(base, gguf, adapter, merged)


@pytest.fixture(scope="module", params=["llama.cpp", "three at once", "guessing", "process", "huggingface"])
def make_engine(request: pytest.FixtureRequest, files: Files) -> Iterator[Callable[[], Engine]]:
    makers: dict[str, Callable[[], Engine]] = {
        "llama.cpp": lambda: LlamaEngine(files.gguf),
        "three at once": lambda: LlamaEngine(files.gguf, sequences=3),
        "guessing": lambda: LlamaEngine(files.gguf, tuning=Tuning(draft_tokens=4)),
        "process": lambda: EngineProcess(EngineSettings(files.gguf)),
        "huggingface": lambda: HuggingFaceEngine(files.base),
    }
    made: list[Engine] = []

    def make() -> Engine:
        made.append(makers[request.param]())
        return made[-1]

    yield make
    for engine in made:
        if isinstance(engine, LlamaEngine | EngineProcess):
            engine.close()


@pytest.fixture(scope="module")
def shared_engine(make_engine: Callable[[], Engine]) -> Engine:
    return make_engine()


def prompt(ask: str, *later: Message) -> str:
    first = user_message(ask, World(SITE).snapshot(), "08:00")
    return TEMPLATE.render([SYSTEM, first, *later], add_generation_prompt=True)


def short(choice: str = "(call{1,12} | ANSWER)") -> Grammar:
    """The site's grammar with short texts, for a model that would babble up to every limit."""
    lark = reply_grammar(CONTRACT.tools).lark
    for old, new in (("{0,400}", "{0,12}"), ("{0,599}", "{0,12}"), ("(call{1,12} | ANSWER)", choice)):
        assert old in lark
        lark = lark.replace(old, new)
    return Grammar(lark)


def one(engine: Engine, text: str, grammar: Grammar | None, limits: Limits | None = None) -> Completion:
    (completion,) = engine.generate([Request(text, grammar, limits or Limits())])
    return completion


def guesses(engine: Engine) -> bool:
    return isinstance(engine, LlamaEngine) and engine._tuning.draft_tokens > 0


def test_a_reply_follows_its_grammar(shared_engine: Engine) -> None:
    for choice, kind in (("call{1,2}", ToolCalls), ("ANSWER", Answer)):
        completion = one(shared_engine, prompt(ASKS[0]), short(choice))
        assert completion.stop_reason == "end_of_turn"
        assert isinstance(parse_reply(completion.text, CONTRACT.tools), kind), completion.text
        assert 0 < completion.forced_tokens < len(completion.token_ids)
        chosen = len(completion.token_ids) - completion.forced_tokens
        assert 0 < completion.model_steps <= chosen + 1  # and the end of the turn
        assert completion.model_steps >= chosen or guesses(shared_engine)


def test_the_text_has_markers_and_no_end_of_turn(shared_engine: Engine) -> None:
    completion = one(shared_engine, prompt(ASKS[0]), short("call{1,2}"))
    assert completion.text.startswith("<think>") and completion.text.endswith("</tool_call>")
    assert TEMPLATE.end_of_turn not in completion.text


def test_an_extended_prompt_is_not_evaluated_twice(make_engine: Callable[[], Engine]) -> None:
    engine = make_engine()
    first = one(engine, prompt(ASKS[0]), short("call{1,2}"))
    assert first.reused_tokens == 0
    reply = parse_reply(first.text, CONTRACT.tools)
    assert isinstance(reply, ToolCalls)
    later = Message("assistant", "", reply.thought, reply.calls), Message("tool", '{"status":"done"}')
    extended = prompt(ASKS[0], *later)
    second = one(engine, extended, short())
    assert second.reused_tokens >= first.prompt_tokens - 1
    fresh = one(make_engine(), extended, short())
    assert fresh.reused_tokens == 0
    assert (second.token_ids, second.text) == (fresh.token_ids, fresh.text)


def test_a_primed_prefix_is_not_evaluated_again(make_engine: Callable[[], Engine]) -> None:
    engine, prefix = make_engine(), TEMPLATE.render([SYSTEM], add_generation_prompt=False)
    engine.prime(prefix)
    engine.prime(prefix)
    # not ASKS[0]: with these random weights two of its tokens are 0.005 apart, and batches cut elsewhere swap them
    primed = one(engine, prompt(ASKS[1]), short())
    assert primed.reused_tokens > 100
    assert primed.token_ids == one(make_engine(), prompt(ASKS[1]), short()).token_ids
    other = one(engine, prompt(ASKS[2]), short())
    assert other.reused_tokens >= primed.reused_tokens


def test_a_batch_gives_the_same_as_one_by_one(make_engine: Callable[[], Engine]) -> None:
    requests = [
        Request(prompt(ask), grammar, Limits(reply_tokens))
        for ask in ASKS
        for grammar, reply_tokens in ((short("call{1,2}"), 90), (short("ANSWER"), 7), (None, 5))
    ]
    engine = make_engine()
    if isinstance(engine, LlamaEngine) and len(engine._sequences) > 1:
        pytest.skip("several at once multiply matrices of other shapes, and random weights nearly tie")
    batch = engine.generate(requests)
    single = [engine.generate([request])[0] for request in reversed(requests)][::-1]
    assert [completion.token_ids for completion in batch] == [completion.token_ids for completion in single]
    for one_in_batch, alone in zip(batch, single, strict=True):
        assert one_in_batch.text == alone.text and one_in_batch.stop_reason == alone.stop_reason
        assert one_in_batch.prompt_tokens == alone.prompt_tokens
        assert one_in_batch.model_steps == alone.model_steps or guesses(engine)  # from the replies before, too
        assert one_in_batch.overruled_tokens == alone.overruled_tokens
    assert engine.generate([]) == []


def test_several_at_once_say_what_one_alone_says(tmp_path: Path) -> None:
    """With the starter, whose decisions are clear: turns of two replies each, more of them than there are sequences."""
    gguf, simulation = tmp_path / "starter.gguf", evaluation_simulation(SITE, TEMPLATE)
    convert(STARTER_FOLDER, None, gguf, template=TEMPLATE, name="starter", metadata={})
    cases, prefix = list(generate_cases(SITE, 24, 11)), simulation.agent(World(SITE)).prefix
    with LlamaEngine(gguf) as engine:
        engine.prime(prefix)
        alone = run_cases(engine, cases, simulation.start_turn, batch_size=1)
    for sequences, draft_tokens in ((5, 0), (1, 6), (5, 6)):
        with LlamaEngine(gguf, sequences=sequences, tuning=Tuning(draft_tokens=draft_tokens)) as engine:
            engine.prime(prefix)
            together = run_cases(engine, cases, simulation.start_turn, batch_size=7)
        pairs = [(one.result.completions, other.result.completions) for one, other in zip(alone, together, strict=True)]
        assert sum(len(one) for one, _ in pairs) > len(cases)
        same = [[reply.token_ids for reply in one] == [reply.token_ids for reply in other] for one, other in pairs]
        overruled = [[reply.overruled_tokens for reply in one] for one, _ in pairs]
        others = [[reply.overruled_tokens for reply in other] for _, other in pairs]
        assert sum(same) >= len(cases) - 1  # matrices of other shapes round otherwise: a near-tie may fall either way
        assert sum(one == other for one, other in zip(overruled, others, strict=True)) >= len(cases) - 2
        assert all(reply.reused_tokens > 200 for _, other in pairs for reply in other)
        steps = [sum(reply.model_steps for replies in side for reply in replies) for side in zip(*pairs, strict=True)]
        assert (steps[1] < steps[0]) == bool(draft_tokens)


def test_the_token_limit_stops(shared_engine: Engine) -> None:
    for grammar in (None, short("call{1,2}")):
        for count in (1, 6):
            completion = one(shared_engine, prompt(ASKS[0]), grammar, Limits(count))
            assert (len(completion.token_ids), completion.stop_reason) == (count, "length")


def test_what_is_forced_needs_no_model(shared_engine: Engine) -> None:
    completion = one(shared_engine, prompt("hi"), Grammar('start: "light_on"\n'))
    assert (completion.text, completion.model_steps, completion.stop_reason) == ("light_on", 0, "end_of_turn")
    completion = one(shared_engine, prompt("hi"), Grammar('start: "on the door" | "kitchen light"\n'))
    assert completion.text in {"on the door", "kitchen light"} and completion.model_steps == 1


def test_the_model_may_end_its_turn_where_the_grammar_allows(shared_engine: Engine) -> None:
    completion = one(shared_engine, prompt("hi"), Grammar('start: "ok" /!{0,3}/\n'))
    assert completion.stop_reason == "end_of_turn"
    assert completion.text.rstrip("!") == "ok"


def fixed(thought: str, answer: str) -> Grammar:
    """The grammar of one reply alone; after it the model still has a choice."""
    markers = "".join(line + "\n" for line in short().lark.splitlines() if line.startswith(("think:", "end_think:")))
    return Grammar(f"start: think {json.dumps(' ' + thought)} end_think {json.dumps(answer)} /!{{0,2}}/\n{markers}")


@pytest.mark.parametrize("name", ["llama.cpp", "huggingface"])
def test_a_reply_says_how_often_the_grammar_overruled_the_model(name: str, tmp_path: Path) -> None:
    gguf = tmp_path / "starter.gguf"
    convert(STARTER_FOLDER, None, gguf, template=TEMPLATE, name="starter", metadata={})
    engine: Engine = HuggingFaceEngine(STARTER_FOLDER) if name == "huggingface" else LlamaEngine(gguf)
    said = parse_reply(one(engine, prompt("hello"), None).text, CONTRACT.tools)
    assert isinstance(said, Answer)
    assert one(engine, prompt("hello"), None).overruled_tokens == 0
    as_said = one(engine, prompt("hello"), fixed(said.thought, said.text))
    assert (as_said.overruled_tokens, as_said.model_steps) == (0, 1)
    assert one(engine, prompt("hello"), fixed(said.thought, "Xylophone.")).overruled_tokens > 0
    chosen = Grammar(fixed(said.thought, "?").lark.replace('"?"', '("Xylo" | "Zeppelin")'))
    assert one(engine, prompt("hello"), chosen).overruled_tokens > 0


@pytest.mark.parametrize("lark", ["start: <nothing>\n", "start: (\n", 'start: %json {"not": {}}\n'])
def test_a_wrong_grammar_gives_no_reply(shared_engine: Engine, lark: str) -> None:
    for _ in range(2):
        with pytest.raises(UnavailableError, match="grammar"):
            one(shared_engine, prompt("hi"), Grammar(lark))
    assert one(shared_engine, prompt("hi"), short()).stop_reason == "end_of_turn"


def test_the_timeout_stops(shared_engine: Engine) -> None:
    completion = one(shared_engine, prompt(ASKS[0]), short(), Limits(timeout_s=0.0))
    assert (completion.stop_reason, completion.model_steps) == ("timeout", 0)
    assert one(shared_engine, prompt(ASKS[0]), short(), Limits(timeout_s=600.0)).stop_reason == "end_of_turn"


def test_what_does_not_fit_the_context_is_refused_with_numbers(shared_engine: Engine) -> None:
    with pytest.raises(UsageError, match=r"the prompt has \d{4,} tokens and the reply may have 160.* holds \d{4}"):
        one(shared_engine, prompt("light on " * 2000), short())
    with pytest.raises(UsageError, match="empty"):
        one(shared_engine, "", short())
    with pytest.raises(UsageError):
        shared_engine.prime("light on " * 4000)


def test_memory_is_that_of_a_process(shared_engine: Engine) -> None:
    assert 20e6 < shared_engine.memory_bytes() < 100e9


@pytest.mark.parametrize("is_adapted", [False, True])
def test_both_engines_say_the_same(files: Files, is_adapted: bool) -> None:
    """F16 rounds, so a near-tie may fall either way: every first token and most of all tokens must agree."""
    requests = [Request(prompt(ask), short("call{1,2}"), Limits(90)) for ask in ASKS]
    requests += [Request(prompt(ask), None, Limits(12)) for ask in ASKS]
    theirs = HuggingFaceEngine(files.base, files.adapter if is_adapted else None).generate(requests)
    with LlamaEngine(files.merged_gguf if is_adapted else files.gguf) as engine:
        ours = engine.generate(requests)
    agreed = [common_length(one.token_ids, other.token_ids) for one, other in zip(ours, theirs, strict=True)]
    assert min(agreed) >= 1
    assert sum(agreed) >= 0.7 * sum(len(completion.token_ids) for completion in theirs)


def test_the_adapter_changes_what_is_said(files: Files) -> None:
    requests = [Request(prompt(ask), None, Limits(12)) for ask in ASKS]
    plain = HuggingFaceEngine(files.base).generate(requests)
    adapted = HuggingFaceEngine(files.base, files.adapter).generate(requests)
    assert [completion.token_ids for completion in plain] != [completion.token_ids for completion in adapted]


def test_a_small_batch_size_changes_nothing(files: Files) -> None:
    requests = [Request(prompt(ask), short(), Limits(40)) for ask in ASKS]
    whole = HuggingFaceEngine(files.base).generate(requests)
    parts = HuggingFaceEngine(files.base, batch_size=3).generate(requests)
    assert [completion.token_ids for completion in whole] == [completion.token_ids for completion in parts]


def test_nf4_runs_on_a_cpu(files: Files) -> None:
    completion = one(HuggingFaceEngine(files.base, files.adapter, load_in_4bit=True), prompt("hi"), short())
    assert completion.stop_reason == "end_of_turn"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_a_cut_gguf_is_refused_with_its_path(files: Files, tmp_path: Path, share: float) -> None:
    whole = files.gguf.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(BadGguf, match=r"cut\.gguf"):
        LlamaEngine(cut)


def test_what_is_no_model_is_refused_with_its_path(files: Files, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.gguf"):
        LlamaEngine(tmp_path / "none.gguf")
    with pytest.raises(UsageError, match="cannot load the model folder"):
        HuggingFaceEngine(tmp_path)
    with pytest.raises(UnavailableError, match="no/such"):
        HuggingFaceEngine("no/such")
    with pytest.raises(UsageError, match="adapter"):
        HuggingFaceEngine(files.base, tmp_path)
    with pytest.raises(UsageError, match="no end-of-turn token <end>"):
        HuggingFaceEngine(files.base, end_of_turn="<end>")


def test_a_closed_engine_says_so(files: Files) -> None:
    with LlamaEngine(files.gguf) as engine:
        pass
    engine.close()
    with pytest.raises(UsageError, match="closed"):
        one(engine, "hi", None)
