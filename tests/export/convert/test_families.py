"""Every family with a vocabulary in its form and random weights in its shape: the same tokens and logits in llama.cpp.

Made vocabularies (made_vocabularies.py) go through everything, published ones through what is about tokens; through the
rest, too, among the slow tests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from devices.errors import GateError
from devices.simulation.world import World
from devices.site.site import load_site
from edge_agent.engine.engine import Limits, Request, common_length
from edge_agent.engine.gguf_header import require_gguf
from edge_agent.engine.llama_cpp_engine import LlamaEngine
from edge_agent.evaluation.gate_limits import GateLimits
from edge_agent.grammar.grammar import Grammar
from edge_agent.grammar.reply_grammar import reply_grammar
from edge_agent.wire.chat_template import ChatTemplate, load_template
from edge_agent.wire.contract import contract_of
from edge_agent.wire.messages import Message, defuse, user_message
from edge_agent.wire.parsing import ToolCalls, parse_reply
from export import architectures as layout
from export.convert.adapter_gguf import write_adapter
from export.convert.gguf_writer import convert, read_config
from export.gates import parity
from export.llama_cpp_file import LlamaFile
from export.quantize.plan import Quant, plan
from export.rope import Rope
from export.trained.samples import Sample
from finetune.inference.huggingface_engine import HuggingFaceEngine
from tests.export.conftest import check_all
from tests.export.quantize.test_plan import quantize_with_llama_cpp, tensors_of
from tests.families import FAMILIES, FUSED, PUBLISHED, make_base
from tests.tiny_base import make_tiny_run, tiny_samples
from tests.vocabularies import Find


@dataclass(frozen=True)
class Converted:
    """A family's base and run, and what our converter made of them; `vocabularies` is the folder of its vocabulary."""

    name: str
    vocabulary: str
    vocabularies: Path
    base: Path
    adapter: Path
    template: ChatTemplate
    gguf: Path

    @property
    def samples(self) -> list[Sample]:
        return tiny_samples(self.template)

    def check(self, gguf: Path) -> parity.Distance:
        return check_all(self.base, self.adapter, self.template, gguf, self.samples)

    def convert(self, out: Path, kind: Quant = "F16") -> None:
        planned = plan(layout.read_shape(read_config(self.base)), kind)
        convert(self.base, self.adapter, out, template=self.template, name="tiny", metadata={}, planned=planned)


ROOT = Path(__file__).parents[3]
EACH_VOCABULARY = ("llama-3.2", "mistral", "qwen2.5", "phi-3", "gemma-3")  # a family for each
TIED = {name for name, (*_, changes) in FAMILIES.items() if changes.get("tie_word_embeddings")}
EACH_PUBLISHED = [name for name in EACH_VOCABULARY if name in PUBLISHED]


def over(made: Iterable[str], published: Iterable[str] = (), slow: Iterable[str] = ()) -> pytest.MarkDecorator:
    """Run a test over families with a made and with a published vocabulary, with those in `slow` as a slow test."""
    cases = [pytest.param(("made", name), id=f"made-{name}") for name in made]
    cases += [pytest.param(("published", name), id=f"published-{name}") for name in published]
    cases += [pytest.param(("published", name), id=f"published-{name}", marks=pytest.mark.slow) for name in slow]
    return pytest.mark.parametrize("converted", cases, indirect=True)


@pytest.fixture(scope="module")
def converted(
    request: pytest.FixtureRequest, vocabularies: Find, tmp_path_factory: pytest.TempPathFactory
) -> Converted:
    source, family = request.param
    _, vocabulary, template, _ = FAMILIES[family]
    found, folder = vocabularies(source), tmp_path_factory.mktemp("family")
    base = make_base(family, found, folder / "base")
    run = make_tiny_run(folder / "run", base, targets=FUSED if vocabulary == "phi-3" else None)
    gguf = folder / "model.gguf"
    result = Converted(family, vocabulary, found, base, run / "adapter", load_template(template), gguf)
    result.convert(result.gguf)
    return result


@over(FAMILIES, slow=PUBLISHED)
def test_tokens_and_logits_are_those_of_hugging_face(converted: Converted, tmp_path: Path) -> None:
    report = converted.check(converted.gguf)
    assert report.mean_kl < 1e-4 and report.top1_agreement >= 0.99
    header = require_gguf(converted.gguf)
    assert ("output.weight" in header.tensor_types) == (converted.name not in TIED)
    f16_reference = parity.F16Reference(converted.gguf, converted.samples)
    kinds: tuple[Quant, ...] = ("Q8_0", "Q4_K_M")
    for kind in kinds:
        ours, theirs = tmp_path / f"{kind}.gguf", tmp_path / f"{kind}-by-llama.cpp.gguf"
        converted.convert(ours, kind)
        assert f16_reference.distance(ours)[None].mean_kl < 1.0
        quantize_with_llama_cpp(converted.gguf, theirs, kind)
        assert tensors_of(ours) == tensors_of(theirs)


@over(EACH_VOCABULARY, slow=EACH_PUBLISHED)
def test_a_corpus_is_cut_as_hugging_face_cuts_it(converted: Converted) -> None:
    """Code, YAML, Markdown and JSON of this project, every block of Unicode, numbers, and runs of blanks."""
    from transformers import AutoTokenizer

    files = ["edge_agent/wire/messages.py", "devices/sites/home.yaml", "README.md", "benchmarks/results/soak.json"]
    texts = [defuse((ROOT / name).read_text(encoding="utf-8")) for name in files]  # as all text from outside is
    planes = [
        chr(point) for point in [*range(0x20, 0xD800, 7), *range(0xE000, 0x20000, 61)] if chr(point).isprintable()
    ]
    texts += ["".join(planes[start : start + 40]) for start in range(0, len(planes), 400)]
    texts += [" ".join(str(7**power) for power in range(60)), "".join(" " * count + "x\n\t" for count in range(80))]
    tokenizer = AutoTokenizer.from_pretrained(converted.base)
    lead = tokenizer.bos_token or ""  # as every rendered text has it
    with LlamaFile(converted.gguf) as model:
        assert parity.check_tokens(model, tokenizer, [lead + text for text in texts]) > 10_000
        if converted.vocabulary == "qwen2":  # a plain token of theirs, which llama.cpp takes for the end of a turn
            assert len(model.tokenize("</s>")) == 1 and tokenizer.encode("</s>") != model.tokenize("</s>")
            assert tokenizer.encode(defuse("</s>")) == model.tokenize(defuse("</s>"))


@over(FAMILIES, slow=PUBLISHED)
def test_the_adapter_s_own_file_is_applied_to_the_base_s(converted: Converted, tmp_path: Path) -> None:
    convert(converted.base, None, tmp_path / "base.gguf", template=converted.template, name="base", metadata={})
    shape = layout.read_shape(read_config(converted.base))
    write_adapter(shape, converted.adapter, tmp_path / "adapter.gguf", "tiny", {})
    f16_reference = parity.F16Reference(converted.gguf, converted.samples[:2])
    report = parity.check_adapter(f16_reference, tmp_path / "base.gguf", tmp_path / "adapter.gguf", GateLimits())
    assert report.mean_kl < 1e-4


@over(EACH_VOCABULARY, slow=EACH_PUBLISHED)
def test_the_grammar_holds_in_its_vocabulary(converted: Converted) -> None:
    site = load_site("home")
    contract = contract_of(site, converted.template)
    lark = reply_grammar(contract.tools).lark.replace("(call{1,12} | ANSWER)", "call{1,2}").replace("{0,400}", "{0,12}")
    messages = [Message("system", contract.system_text), user_message("turn it on", World(site).snapshot(), "08:00")]
    prompt = converted.template.render(messages, add_generation_prompt=True)
    engine = LlamaEngine(converted.gguf)
    try:
        (reply,) = engine.generate([Request(prompt, Grammar(lark), Limits(reply_tokens=300))])
        if converted.vocabulary == "gemma":
            assert b" " * 31 in engine.token_table.words  # is printed as blanks, not as what stands for them
    finally:
        engine.close()
    assert isinstance(parse_reply(reply.text, contract.tools), ToolCalls), reply.text
    assert reply.forced_tokens > 0


@over((), published=("mistral", "phi-3"), slow=("llama-3.2", "qwen2.5"))
def test_llama_cpp_s_own_cases_are_cut_as_its_authors_say(converted: Converted) -> None:
    file = converted.vocabularies / f"ggml-vocab-{converted.vocabulary}.gguf"
    asked = Path(f"{file}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")[:-1]
    expected = [[int(token) for token in line.split()] for line in Path(f"{file}.out").read_text().splitlines()]
    assert len(asked) == len(expected) > 40
    with LlamaFile(converted.gguf) as model:
        blank = " " if converted.vocabulary == "llama-spm" else ""  # that file's authors put one before every text
        assert [model.tokenize(blank + text if text else "") for text in asked] == expected


PERMUTED = layout.FAMILIES | {"Qwen2ForCausalLM": replace(layout.FAMILIES["Qwen2ForCausalLM"], is_permuted=True)}
WRONG: dict[str, tuple[str, Any]] = {
    "mistral": ("permute", lambda weight, heads: weight),
    "qwen2.5": ("FAMILIES", PERMUTED),
    "phi-3-128k": ("read_rope", lambda *_: Rope(10000.0)),
}  # fmt: skip


@over(WRONG)
def test_a_layout_of_another_family_is_stopped(
    converted: Converted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, *WRONG[converted.name])
    converted.convert(tmp_path / "wrong.gguf")
    with pytest.raises(GateError, match="gate logits"):
        converted.check(tmp_path / "wrong.gguf")


WINDOW = layout.Window(tokens=96, period=6, theta=10000.0)  # what it has
OTHER_GEMMAS: dict[str, dict[str, Any]] = {
    "norms": {"family": replace(layout.FAMILIES["Gemma3ForCausalLM"], adds_one=False)},
    "longer window": {"window": replace(WINDOW, tokens=128)},
    "window in other layers": {"window": replace(WINDOW, period=5)},
    "frequencies": {"window": replace(WINDOW, theta=1e6)},
}


@over(["gemma-3"])
@pytest.mark.parametrize("change", OTHER_GEMMAS)
def test_another_gemma_3_is_stopped(
    converted: Converted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    real = layout.read_shape
    assert real(read_config(converted.base)).window == WINDOW
    monkeypatch.setattr(layout, "read_shape", lambda config: replace(real(config), **OTHER_GEMMAS[change]))
    converted.convert(tmp_path / "wrong.gguf")
    with pytest.raises(GateError, match="gate logits"):
        converted.check(tmp_path / "wrong.gguf")


@over(["gemma-3"])
def test_replies_beyond_a_window_are_the_same_in_any_company(converted: Converted) -> None:
    prompts = [sample.prompt for sample in converted.samples]
    prompts[1] = prompts[1].replace("Request: ", "Request: " + "please " * 40)  # a batch pads the others
    requests = [Request(prompt, None, Limits(reply_tokens=12)) for prompt in prompts]
    theirs = HuggingFaceEngine(converted.base, converted.adapter, end_of_turn=converted.template.end_of_turn)
    alone = [theirs.generate([request])[0].token_ids for request in requests]
    assert [reply.token_ids for reply in theirs.generate(requests)] == alone
    for sequences in (1, 3):
        with LlamaEngine(converted.gguf, sequences=sequences) as engine:
            ours = [reply.token_ids for reply in engine.generate(requests)]
            engine.prime(requests[0].prompt[:-40])
            state = memoryview(engine.state())
        with LlamaEngine(converted.gguf, sequences=sequences) as engine:
            assert engine.restore(state)
            ours.append(engine.generate(requests[:1])[0].token_ids)
        assert ours[0] == ours[-1]  # on a prefix that was kept
        agreed = [common_length(one, other) for one, other in zip(ours, alone, strict=False)]
        assert sum(agreed) >= 0.7 * sum(map(len, alone))  # F16 rounds, and near-ties go on otherwise


@over(["phi-3"])
def test_phi_3_is_known_by_its_name(converted: Converted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "phi-3" in str(require_gguf(converted.gguf).metadata["general.name"])
    import export.convert.gguf_writer

    real = export.convert.gguf_writer.read_vocabulary
    monkeypatch.setattr(
        export.convert.gguf_writer, "read_vocabulary", lambda *given: replace(real(*given), drops_blanks_after=False)
    )
    converted.convert(tmp_path / "wrong.gguf")
    with pytest.raises(GateError, match="gate tokens"):
        converted.check(tmp_path / "wrong.gguf")
