"""Every family with its real vocabulary and random weights in its shape: the same tokens and logits in llama.cpp."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from devices.errors import GateError
from devices.simulator import World
from devices.site import load_site
from edge_agent.engine import Limits, Request
from edge_agent.gate_limits import GateLimits
from edge_agent.gguf_header import require_gguf
from edge_agent.grammar import reply_grammar
from edge_agent.grammar_text import Grammar
from edge_agent.llama_engine import LlamaEngine
from edge_agent.wire import (
    ChatTemplate,
    Message,
    ToolCalls,
    contract_of,
    defuse,
    load_template,
    parse_reply,
    user_message,
)
from export import layout, parity
from export.adapter_file import write_adapter
from export.convert import convert, read_config
from export.llama_file import LlamaFile
from export.quantize import Quant, plan
from export.samples import Sample
from tests.export.conftest import check_all
from tests.families import FAMILIES, FUSED, make_base
from tests.tiny_base import make_tiny_run, tiny_samples
from tests.vocabularies import VOCABULARIES


@dataclass(frozen=True)
class Made:
    """A family's base and run, and what our converter made of them."""

    name: str
    vocabulary: str
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


@pytest.fixture(scope="module", params=FAMILIES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    if not VOCABULARIES.exists():
        pytest.skip(f"no {VOCABULARIES}")
    _, vocabulary, template, _ = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp("family")
    base = make_base(request.param, VOCABULARIES, folder / "base")
    run = make_tiny_run(folder / "run", base, targets=FUSED if vocabulary == "phi-3" else None)
    result = Made(request.param, vocabulary, base, run / "adapter", load_template(template), folder / "model.gguf")
    result.convert(result.gguf)
    return result


def test_tokens_and_logits_are_those_of_hugging_face(made: Made, tmp_path: Path) -> None:
    report = made.check(made.gguf)
    assert report.mean_kl < 1e-4 and report.top1_agreement >= 0.99
    header = require_gguf(made.gguf)
    assert ("output.weight" in header.tensor_types) == (made.name not in {"llama-3.2", "qwen2.5", "qwen3"})
    yardstick, kinds = parity.Yardstick(made.gguf, made.samples), ("Q8_0", "Q4_K_M")
    for kind in kinds:
        made.convert(tmp_path / f"{kind}.gguf", kind)
        assert yardstick.distance(tmp_path / f"{kind}.gguf")[None].mean_kl < 1.0


def test_a_corpus_is_cut_as_hugging_face_cuts_it(made: Made) -> None:
    """Code, YAML, Markdown and JSON of this project, every block of Unicode, numbers, and runs of blanks."""
    from transformers import AutoTokenizer

    files = ["edge_agent/wire.py", "devices/sites/home.yaml", "README.md", "benchmarks/results/soak.json"]
    texts = [defuse((ROOT / name).read_text(encoding="utf-8")) for name in files]  # as all text from outside is
    planes = [
        chr(point) for point in [*range(0x20, 0xD800, 7), *range(0xE000, 0x20000, 61)] if chr(point).isprintable()
    ]
    texts += ["".join(planes[start : start + 40]) for start in range(0, len(planes), 400)]
    texts += [" ".join(str(7**power) for power in range(60)), "".join(" " * count + "x\n\t" for count in range(80))]
    tokenizer = AutoTokenizer.from_pretrained(made.base)
    lead = tokenizer.bos_token or ""  # as every rendered text has it
    with LlamaFile(made.gguf) as model:
        assert parity.check_tokens(model, tokenizer, [lead + text for text in texts]) > 10_000
        if made.vocabulary == "qwen2":  # of 151,936 tokens a plain one, which llama.cpp takes for the end of a turn
            assert len(model.tokenize("</s>")) == 1 and tokenizer.encode("</s>") != model.tokenize("</s>")
            assert tokenizer.encode(defuse("</s>")) == model.tokenize(defuse("</s>"))


def test_the_adapter_s_own_file_is_laid_over_the_base_s(made: Made, tmp_path: Path) -> None:
    convert(made.base, None, tmp_path / "base.gguf", template=made.template, name="base", metadata={})
    shape = layout.read_shape(read_config(made.base))
    write_adapter(shape, made.adapter, tmp_path / "adapter.gguf", "tiny", {})
    yardstick = parity.Yardstick(made.gguf, made.samples[:2])
    report = parity.check_adapter(yardstick, tmp_path / "base.gguf", tmp_path / "adapter.gguf", GateLimits())
    assert report.mean_kl < 1e-4


def test_the_grammar_holds_in_its_vocabulary(made: Made) -> None:
    site = load_site("home")
    contract = contract_of(site, made.template)
    lark = reply_grammar(contract.tools).lark.replace("(call{1,12} | ANSWER)", "call{1,2}").replace("{0,400}", "{0,12}")
    messages = [Message("system", contract.system_text), user_message("turn it on", World(site).snapshot(), "08:00")]
    prompt = made.template.render(messages, add_generation_prompt=True)
    engine = LlamaEngine(made.gguf)
    try:
        (reply,) = engine.generate([Request(prompt, Grammar(lark), Limits(reply_tokens=300))])
    finally:
        engine.close()
    assert isinstance(parse_reply(reply.text, contract.tools), ToolCalls), reply.text
    assert reply.forced_tokens > 0


def test_llama_cpp_s_own_cases_are_cut_as_its_authors_say(made: Made) -> None:
    file = VOCABULARIES / f"ggml-vocab-{made.vocabulary}.gguf"
    asked = Path(f"{file}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")[:-1]
    expected = [[int(token) for token in line.split()] for line in Path(f"{file}.out").read_text().splitlines()]
    assert len(asked) == len(expected) > 40
    with LlamaFile(made.gguf) as model:
        ours = [model.tokenize(text) for text in asked]
    if made.vocabulary == "llama-spm":  # its tokenizer.json puts a blank before a text without a special token only
        assert ours != expected
    else:
        assert ours == expected


ROOT = Path(__file__).parents[2]
PERMUTED = layout.FAMILIES | {"Qwen2ForCausalLM": replace(layout.FAMILIES["Qwen2ForCausalLM"], is_permuted=True)}
WRONG: dict[str, tuple[str, Any]] = {
    "mistral": ("permute", lambda weight, heads: weight),
    "qwen2.5": ("FAMILIES", PERMUTED),
    "phi-3-128k": ("_rope", lambda *_: layout.Rope(10000.0)),
}  # fmt: skip


def test_a_layout_of_another_family_is_stopped(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if made.name not in WRONG:
        pytest.skip("has no mistake of its own")
    monkeypatch.setattr(layout, *WRONG[made.name])
    made.convert(tmp_path / "wrong.gguf")
    with pytest.raises(GateError, match="gate logits"):
        made.check(tmp_path / "wrong.gguf")


def test_phi_3_is_known_by_its_name(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if made.name != "phi-3":
        pytest.skip("only Phi-3 drops blanks after added tokens")
    assert "phi-3" in str(require_gguf(made.gguf).metadata["general.name"])
    import export.convert

    real = export.convert.read_vocabulary
    monkeypatch.setattr(
        export.convert, "read_vocabulary", lambda *given: replace(real(*given), drops_blanks_after=False)
    )
    made.convert(tmp_path / "wrong.gguf")
    with pytest.raises(GateError, match="gate tokens"):
        made.check(tmp_path / "wrong.gguf")
