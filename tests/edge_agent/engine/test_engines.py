"""What every engine does, on the same tiny random weights: llama.cpp from F16, Hugging Face in fp32."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devices.errors import UnavailableError, UsageError
from devices.simulation.world import World
from devices.site.site import load_site
from edge_agent.engine.autotune import Tuning
from edge_agent.engine.engine import Completion, Engine, Limits, Request, common_length, peak_resident_bytes
from edge_agent.engine.gguf_header import BadGguf
from edge_agent.engine.llama_cpp_engine import LlamaEngine
from edge_agent.engine.process import EngineProcess, EngineSettings
from edge_agent.evaluation.case_simulation import CaseSimulation
from edge_agent.evaluation.evaluation import run_cases
from edge_agent.grammar.grammar import Grammar
from edge_agent.grammar.reply_grammar import reply_grammar
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of
from edge_agent.wire.messages import Message, user_message
from edge_agent.wire.parsing import Answer, ToolCalls, parse_reply
from export.convert.gguf_writer import convert
from finetune.data.generator import generate_cases
from finetune.inference.huggingface_engine import HuggingFaceEngine, open_engine
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


@pytest.fixture(scope="module", params=["llama.cpp", "three at once", "speculative", "process", "huggingface"])
def make_engine(request: pytest.FixtureRequest, starter: Path) -> Iterator[Callable[[], Engine]]:
    makers: dict[str, Callable[[], Engine]] = {
        "llama.cpp": lambda: LlamaEngine(starter),
        "three at once": lambda: LlamaEngine(starter, sequences=3),
        "speculative": lambda: LlamaEngine(starter, tuning=Tuning(draft_tokens=4)),
        "process": lambda: EngineProcess(EngineSettings(starter)),
        "huggingface": lambda: HuggingFaceEngine(STARTER_FOLDER),
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


def drafted(engine: Engine) -> bool:
    return isinstance(engine, LlamaEngine) and engine._tuning.draft_tokens > 0


def test_a_reply_follows_its_grammar(shared_engine: Engine) -> None:
    for choice, kind in (("call{1,2}", ToolCalls), ("ANSWER", Answer)):
        completion = one(shared_engine, prompt(ASKS[0]), short(choice))
        assert completion.stop_reason == "end_of_turn"
        assert isinstance(parse_reply(completion.text, CONTRACT.tools), kind), completion.text
        assert 0 < completion.forced_tokens < len(completion.token_ids)
        chosen = len(completion.token_ids) - completion.forced_tokens
        assert 0 < completion.model_steps <= chosen + 1  # and the end of the turn
        assert completion.model_steps >= chosen or drafted(shared_engine)


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
    primed = one(engine, prompt(ASKS[0]), short())
    assert primed.reused_tokens > 100
    assert primed.token_ids == one(make_engine(), prompt(ASKS[0]), short()).token_ids
    other = one(engine, prompt(ASKS[2]), short())
    assert other.reused_tokens >= primed.reused_tokens


def test_a_batch_gives_the_same_as_one_by_one(make_engine: Callable[[], Engine]) -> None:
    requests = [
        Request(prompt(ask), grammar, Limits(reply_tokens))
        for ask in ASKS
        for grammar, reply_tokens in ((short("call{1,2}"), 90), (short("ANSWER"), 7), (None, 5))
    ]
    engine = make_engine()
    batch = engine.generate(requests)
    single = [engine.generate([request])[0] for request in reversed(requests)][::-1]
    assert [completion.token_ids for completion in batch] == [completion.token_ids for completion in single]
    for one_in_batch, alone in zip(batch, single, strict=True):
        assert one_in_batch.text == alone.text and one_in_batch.stop_reason == alone.stop_reason
        assert one_in_batch.prompt_tokens == alone.prompt_tokens
        assert one_in_batch.model_steps == alone.model_steps or drafted(engine)  # from the replies before, too
        assert one_in_batch.overruled_tokens == alone.overruled_tokens
        assert one_in_batch.log_probabilities == pytest.approx(alone.log_probabilities, abs=0.02)
        assert all(-30 < one <= 1e-5 for one in alone.log_probabilities) and 0 < alone.probability <= 1.0001
    assert engine.generate([]) == []


CASES, CASES_SITE = 20, load_site("greenhouse")  # where the starter is overruled


def replies_to_cases(engine: Engine, batch_size: int) -> list[tuple[Completion, ...]]:
    """Return the replies of each case's turn."""
    simulation = CaseSimulation(CASES_SITE, TEMPLATE)
    engine.prime(simulation.agent(World(CASES_SITE)).prefix)
    cases = list(generate_cases(CASES_SITE, CASES, 6000))
    outcomes = run_cases(engine, cases, simulation.start_turn, batch_size=batch_size)
    return [outcome.result.completions for outcome in outcomes]


@pytest.fixture(scope="module")
def alone(starter: Path) -> list[tuple[Completion, ...]]:
    with LlamaEngine(starter) as engine:
        return replies_to_cases(engine, 1)


@pytest.mark.parametrize(
    "name", ["five at once", "speculative", "five at once, speculative", "in small parts", "huggingface"]
)
def test_every_way_says_and_counts_what_one_alone_does(
    starter: Path, alone: list[tuple[Completion, ...]], name: str
) -> None:
    """Matrices of other shapes round otherwise: in one turn a near-tie may fall the other way."""
    makers: dict[str, Callable[[], Engine]] = {
        "five at once": lambda: LlamaEngine(starter, sequences=5),
        "speculative": lambda: LlamaEngine(starter, tuning=Tuning(draft_tokens=6)),
        "five at once, speculative": lambda: LlamaEngine(starter, sequences=5, tuning=Tuning(draft_tokens=6)),
        "in small parts": lambda: LlamaEngine(starter, tuning=Tuning(batch_tokens=8, draft_tokens=6)),
        "huggingface": lambda: HuggingFaceEngine(STARTER_FOLDER),
    }
    engine = makers[name]()
    together = replies_to_cases(engine, 7)
    engine.close()  # type: ignore[attr-defined]
    pairs = [
        (one, other)
        for one, other in zip(alone, together, strict=True)
        if [reply.token_ids for reply in one] == [reply.token_ids for reply in other]
    ]
    assert len(pairs) >= CASES - 1
    same = [replies for pair in pairs for replies in zip(*pair, strict=True)]
    assert len(same) >= CASES - 1
    for one, other in same:
        assert (one.overruled_tokens, one.forced_tokens) == (other.overruled_tokens, other.forced_tokens)
        assert (one.stop_reason, one.prompt_tokens) == (other.stop_reason, other.prompt_tokens)
        assert one.probability == pytest.approx(other.probability, abs=0.05)
        assert other.reused_tokens > 150
        assert other.model_steps == one.model_steps or "speculative" in name or "parts" in name
    if "speculative" in name or "parts" in name:
        assert sum(other.model_steps for _, other in same) < sum(one.model_steps for one, _ in same)


def test_a_run_is_opened_as_its_base_with_its_adapter(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base")
    run = make_tiny_run(tmp_path / "run", base)
    ways = {
        "run": open_engine(str(run)),
        "base and adapter": open_engine(str(base), adapter=str(run / "adapter")),
        "base": open_engine(str(base)),
    }
    request = Request("Hello", None, Limits(reply_tokens=12))
    said = {way: engine.generate([request])[0].token_ids for way, engine in ways.items()}
    assert said["run"] == said["base and adapter"] != said["base"]


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
def test_a_reply_says_how_often_the_grammar_overruled_the_model(name: str, starter: Path) -> None:
    engine: Engine = HuggingFaceEngine(STARTER_FOLDER) if name == "huggingface" else LlamaEngine(starter)
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


def kept_in_memory(pid: int) -> int:
    """Return what a process has in memory now, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="a process's memory is looked up in /proc")
def test_memory_is_that_of_the_process_that_works(shared_engine: Engine) -> None:
    one(shared_engine, prompt("hi"), short())
    pid = shared_engine.pid if isinstance(shared_engine, EngineProcess) else os.getpid()
    found, now = shared_engine.memory_bytes(), kept_in_memory(pid)
    assert now - 2**20 < found  # of itself it may have taken a little more since then
    if isinstance(shared_engine, EngineProcess):  # it has neither torch nor the other engines
        assert found < kept_in_memory(os.getpid())
    else:
        assert abs(found - peak_resident_bytes()) < 2**20


PEAK = """
from edge_agent.engine.engine import peak_resident_bytes
before = peak_resident_bytes()
del (block := [b"x" * 200_000_000])[:]
print(before, peak_resident_bytes())
"""


def test_the_peak_stays_when_the_memory_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert 5e6 < before < 100e6 and 190e6 < after - before < 210e6


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
