"""The gates between training and the box: same tokens, same stop token, same template, same probabilities.

The reference is the Hugging Face model in float32 with the adapter live (not merged), the tokenizer that training
used, and the template's own source. Each failed gate raises a GateError that names the gate and the number.

Does not guard against: a model that was trained badly (evaluation does), or texts unlike the ones given.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.errors import GateError, UsageError
from edge_agent.gguf_header import require_gguf
from edge_agent.wire import ChatTemplate, Message, Role
from export.llama_file import LlamaFile
from export.nf4 import base_weight

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    LogProbs = list[NDArray[float32]]  # for each text float32 (position, vocabulary)

# How much is compared: the end of each text, where attention reaches furthest. 8 · 96 rows of Llama 3's 128,256
# log-probabilities are 400 MB, held once for the reference.
SCORED_TEXTS, SCORED_TOKENS, SCORED_POSITIONS = 8, 2048, 96
PROMPT_TOKENS, REPLY_TOKENS = 4096, 256  # of replies that must end by themselves
# F16 against float32: a right conversion measures a mean KL of 1e-7 to 1e-5 nats; without the adapter, with its
# scale off by a factor of √r or with unpermuted rows it is above 1e-2 on the random model of the tests.
MEAN_KL_LIMIT = 1e-3
# Where the reference prefers its first choice by less than this (in nats), rounding may decide.
TINY_MARGIN = 0.02
TOP1_LIMIT = 0.99
# Quantized against F16: this catches a broken file, not a weak one; that is what the evaluation is for.
QUANT_MEAN_KL_LIMIT = 1.0

NASTY_TEXTS = (
    "",
    " ",
    "  two  blanks   three    four\t\ttabs \n\n\nlines\r\nwindows \u00a0nbsp\u2003em",
    "\n \n  \n",
    "0 1 12 123 1234 12345 3.14159 1,000,000 -40 1e-9 ½ ² ٣ 10:45",
    "it's I'M you'RE they'll we'd can't ''s 'S",
    "Grüße, naïve façade, Ærøskøbing, Ελληνικά, кириллица, עברית, العربية, हिन्दी, ไทย",
    "中文字符測試。日本語のテスト、ひらがな カタカナ 한국어",
    "e\u0301 n\u0303 combining, \u200b zero \u200d width, \ufeff mark, \u202e right to left",
    "👍🏽 👨‍👩‍👧‍👦 🇩🇪 ☃ 🌡️ 21°C 50 % €100 ±5 →",
    '{"name":"light_on","arguments":{"device":"kitchen_light","brightness":100,"nested":[1,2.5,null,true]}}',
    "def f(x):\n    return {\"a\": x ** 2, 'b': [i for i in range(10)]}  # ok?\n\n\n\tend;",
    "!!!??? ... --- ___ === +++ <<< >>> ((())) [[]] {{}} %% $$ ## @@ && || \\\\ // ~~ ``",
    "<|im_start <| im_end |> <think <tool_call / think> </ think> <|not_a_token|>",
    "camelCase snake_case SCREAMING_CASE kebab-case http://example.org/a?b=c&d=e#f user@host",
    "a" * 300,
)


@dataclass(frozen=True)
class ParityReport:
    """What the gates measured on the F16 file. KL in nats; max_abs_delta of log-probabilities."""

    token_texts: int
    tokens: int
    positions: int
    mean_kl: float
    max_abs_delta: float
    top1_agreement: float
    top1_agreement_all: float


@dataclass(frozen=True)
class Endings:
    """How many of a few replies ended with the end-of-turn token by themselves, without a grammar."""

    ended: int
    replies: int


@dataclass(frozen=True)
class QuantParity:
    """A quantized file against the F16 file, on the same texts. KL in nats."""

    positions: int
    mean_kl: float
    max_abs_delta: float
    top1_agreement_all: float


def check(
    base: Path, adapter: Path | None, template: ChatTemplate, gguf_path: Path, texts: list[str], nf4_dtype: str = ""
) -> ParityReport:
    """Return what the gates measured between a base with its adapter and an F16 GGUF file.

    Args:
        base: the base model's folder.
        adapter: the LoRA adapter's folder, or None.
        template: what the conversations were rendered with.
        gguf_path: what `convert` wrote.
        texts: rendered conversations; tokens are compared on all, probabilities on the first few.
        nf4_dtype: as `convert`.

    Raises:
        GateError: a gate failed.
        UsageError: no texts.
    """
    from transformers import AutoTokenizer

    if not texts:
        raise UsageError("parity needs at least one text", hint="the run's sample.jsonl has none")
    tokenizer = AutoTokenizer.from_pretrained(base)
    check_template(template, tokenizer, gguf_path)
    with LlamaFile(gguf_path, SCORED_TOKENS) as model:
        tokens = check_tokens(model, tokenizer, texts)
        check_end_of_turn(model, tokenizer, template)
        rows = scored_rows(model, texts)
        actual = [model.log_probs(row, _positions(row)) for row in rows]
    expected = _reference_log_probs(base, adapter, rows, nf4_dtype)
    measured = compare(expected, actual)
    report = ParityReport(len(texts) + len(NASTY_TEXTS), tokens, **measured)
    if not report.mean_kl < MEAN_KL_LIMIT:
        raise GateError(f"gate logits: mean KL {report.mean_kl:.2g} nats, the limit is {MEAN_KL_LIMIT:g}")
    if not report.top1_agreement >= TOP1_LIMIT:
        raise GateError(f"gate logits: first choices agree in {report.top1_agreement:.4f}, the limit is {TOP1_LIMIT}")
    return report


def compare_quantized(f16: Path, quantized: Path, texts: list[str]) -> QuantParity:
    """Return how far a quantized file is from the F16 file. Raises GateError if it is broken."""
    report = _distance(f16, quantized, texts)
    if not report.mean_kl < QUANT_MEAN_KL_LIMIT:
        raise GateError(
            f"gate quantized: {quantized.name}: mean KL {report.mean_kl:.2g}, limit {QUANT_MEAN_KL_LIMIT:g} nats",
            hint="use a quantization with more bits",
        )
    return report


def compare_adapter(f16: Path, base: Path, adapter: Path, texts: list[str]) -> QuantParity:
    """Return how far a base's file with an adapter's laid over it is from the merged file.

    Raises:
        GateError: the two are not the same model.
    """
    report = _distance(f16, base, texts, adapter)
    if not report.mean_kl < MEAN_KL_LIMIT:
        raise GateError(f"gate adapter: {adapter.name}: mean KL {report.mean_kl:.2g}, limit {MEAN_KL_LIMIT:g} nats")
    return report


def _distance(f16: Path, other: Path, texts: list[str], adapter: Path | None = None) -> QuantParity:
    """Return how far a file, with an adapter's laid over it if there is one, is from the F16 file."""
    rows: list[list[int]] = []
    scores: list[LogProbs] = []
    for path, laid_over in ((f16, None), (other, adapter)):
        with LlamaFile(path, SCORED_TOKENS, laid_over) as model:
            rows = rows or scored_rows(model, texts)
            scores.append([model.log_probs(row, _positions(row)) for row in rows])
    measured = compare(*scores)
    measured.pop("top1_agreement")
    return QuantParity(**measured)


def check_endings(gguf_path: Path, template: ChatTemplate, prompts: Sequence[str]) -> Endings:
    """Return how many replies to prompts end with the end-of-turn token by themselves.

    Raises:
        GateError: fewer than half of them do.
        UsageError: no prompt is short enough to be tried.
    """
    with LlamaFile(gguf_path, PROMPT_TOKENS + REPLY_TOKENS) as model:
        rows = [row for text in prompts[:SCORED_TEXTS] if len(row := model.tokenize(text)) <= PROMPT_TOKENS]
        if not rows:
            raise UsageError(f"the run's sample.jsonl has no prompt of at most {PROMPT_TOKENS} tokens")
        end_of_turn = model.tokenize(template.end_of_turn)
        ended = sum(model.reply(row, REPLY_TOKENS)[-1:] == end_of_turn for row in rows)
    if 2 * ended < len(rows):
        raise GateError(
            f"gate endings: {gguf_path.name}: {ended} of {len(rows)} replies end with {template.end_of_turn} within "
            f"{REPLY_TOKENS} tokens",
            hint="train longer, or check that the base's template is the run's; --endless exports it all the same",
        )
    return Endings(ended, len(rows))


def check_tokens(model: LlamaFile, tokenizer: Any, texts: Sequence[str]) -> int:
    """Return how many tokens were compared. Raises GateError at the first text that both sides cut differently."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    nasty = [*NASTY_TEXTS, "".join(added), *(f"a {text} b{text}\n{text}" for text in added)]
    normalizer = getattr(tokenizer.backend_tokenizer, "normalizer", None)
    lead = tokenizer.bos_token or ""  # as every rendered text has it: a first word may be cut in another way
    total = 0
    for text in [*texts, *(lead + text for text in nasty)]:
        if normalizer is not None:  # NFC, the only one convert accepts; llama.cpp does not do it
            text = unicodedata.normalize("NFC", text)
        expected, actual = tokenizer.encode(text, add_special_tokens=False), model.tokenize(text)
        if expected != actual:
            place = next((n for n, pair in enumerate(zip(expected, actual, strict=False)) if pair[0] != pair[1]),
                         min(len(expected), len(actual)))  # fmt: skip
            raise GateError(
                f"gate tokens: token {place} of {text[:60]!r} differs: Hugging Face {expected[place : place + 4]}, "
                f"llama.cpp {actual[place : place + 4]}"
            )
        total += len(expected)
    return total


def check_end_of_turn(model: LlamaFile, tokenizer: Any, template: ChatTemplate) -> None:
    """Raise GateError unless the end-of-turn token is one token at which llama.cpp stops."""
    ids = tokenizer.encode(template.end_of_turn, add_special_tokens=False)
    if len(ids) != 1 or not model.is_end_of_generation(ids[0]):
        raise GateError(f"gate end of turn: llama.cpp does not stop at {template.end_of_turn!r} (tokens {ids})")


def check_template(template: ChatTemplate, tokenizer: Any, gguf_path: Path) -> None:
    """Raise GateError unless the file has the template, and Hugging Face renders it to the same bytes."""
    if require_gguf(gguf_path).metadata.get("tokenizer.chat_template") != template.source:
        raise GateError(f"gate template: {gguf_path} does not have the template {template.name}")
    for text in ("plain", " blanks \n\n", "{{ 1 }} {% if %} <b> & 'quote' \"\u00e9\"\n"):
        roles: tuple[Role, ...] = ("system", "user", "tool")
        plain = [{"role": role, "content": text} for role in roles]
        theirs = tokenizer.apply_chat_template(
            plain, chat_template=template.source, tokenize=False, add_generation_prompt=True
        )
        if theirs != template.render([Message(role, text) for role in roles], add_generation_prompt=True):
            raise GateError(f"gate template: Hugging Face renders {template.name} to other text, for {text!r}")


def compare(expected: LogProbs, actual: LogProbs) -> dict[str, Any]:
    """Return positions, mean KL(expected ‖ actual), largest difference and first-choice agreement.

    `top1_agreement` leaves out positions where the reference's margin is below TINY_MARGIN.
    """
    import numpy

    kl: list[Any] = []
    margins: list[Any] = []
    agrees: list[Any] = []
    largest = 0.0
    for theirs, ours in zip(expected, actual, strict=True):
        kl.append((numpy.exp(theirs) * (theirs - ours)).sum(axis=1))
        best = numpy.partition(theirs, -2, axis=1)[:, -2:]
        margins.append(best[:, 1] - best[:, 0])
        agrees.append(theirs.argmax(axis=1) == ours.argmax(axis=1))
        largest = float(numpy.maximum(largest, numpy.abs(theirs - ours).max()))
    agree, clear = numpy.concatenate(agrees), numpy.concatenate(margins) >= TINY_MARGIN
    return {
        "positions": len(agree),
        "mean_kl": float(numpy.concatenate(kl).mean()),
        "max_abs_delta": largest,
        "top1_agreement": float(agree[clear].mean()) if clear.any() else 1.0,
        "top1_agreement_all": float(agree.mean()),
    }


def scored_rows(model: LlamaFile, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of the texts whose probabilities are compared."""
    return [row for text in texts[:SCORED_TEXTS] if (row := model.tokenize(text)[:SCORED_TOKENS])]


def _positions(row: list[int]) -> int:
    return min(len(row), SCORED_POSITIONS)


def _reference_log_probs(base: Path, adapter: Path | None, rows: list[list[int]], nf4_dtype: str) -> LogProbs:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for name, weight in model.named_parameters():
        weight.data = base_weight(name, weight.data, nf4_dtype)
    if adapter:
        from peft import PeftModel

        with warnings.catch_warnings():  # peft 0.21 asks transformers 5.23 by a name that it has deprecated
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            model = PeftModel.from_pretrained(model, adapter)
    model.to(device).eval()
    scores = []
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row], device=device)
            logits = model(input_ids=ids, logits_to_keep=_positions(row)).logits[0]
            scores.append(torch.log_softmax(logits.float(), dim=-1).cpu().numpy())
    return scores
