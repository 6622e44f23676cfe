"""The gates between training and the box: same tokens, same stop token, same template, same probabilities.

What is held against what: the F16 file against the model that was trained (reference.py), the tokenizer that training
used and the template's own source; every other file against the F16 file. Each failed gate raises a GateError that
names the gate and the number; limits are a recipe's (edge_agent/evaluation/gate_limits.py).

Does not guard against: a model that was trained badly (evaluation does), or texts unlike the ones given.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateError

from devices.errors import GateError, UsageError
from devices.site.tools import ToolCall
from edge_agent.engine.gguf_header import require_gguf
from edge_agent.evaluation.gate_limits import GateLimits
from edge_agent.wire.chat_template import ChatTemplate
from edge_agent.wire.messages import Message, body_of
from export.llama_cpp_file import LlamaFile
from export.trained.reference import Reference
from export.trained.samples import SCORED_TEXTS, SCORED_TOKENS, Part, Sample, Scored, scored_rows

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    LogProbs = list[NDArray[float32]]  # for each text float32 (position, vocabulary)

PROMPT_TOKENS, REPLY_TOKENS = 4096, 256  # of replies that must end by themselves
BEYOND_TOKENS, BEYOND_POSITIONS = 128, 32  # evaluated, and scored at their end, beyond the original context
# Where the reference prefers its first choice by less than this (in nats), rounding may decide.
TINY_MARGIN = 0.02

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
class Distance:
    """How far one model's log-probabilities are from another's.

    Attributes:
        positions: how many were compared.
        mean_kl: KL(first ‖ second), in nats.
        max_abs_delta: of log-probabilities.
        top1_agreement: share of positions at which both prefer the same token, but for near-ties.
        top1_agreement_all: the same with near-ties.
    """

    positions: int
    mean_kl: float
    max_abs_delta: float
    top1_agreement: float
    top1_agreement_all: float


@dataclass(frozen=True)
class TokenReport:
    """How many texts and tokens were cut alike by both tokenizers."""

    texts: int
    tokens: int


@dataclass(frozen=True)
class Endings:
    """How many of a few replies ended with the end-of-turn token by themselves, without a grammar."""

    ended: int
    replies: int


class F16Reference:
    """What a merged model's F16 file says of the samples: every other file, and the reference, is held against it."""

    def __init__(self, f16: Path, samples: Sequence[Sample]) -> None:
        """Score the samples. Raises UsageError if there are none."""
        if not samples:
            raise UsageError("parity needs at least one text", hint="the run's sample.jsonl has none")
        with LlamaFile(f16, SCORED_TOKENS) as model:
            self.rows: list[Scored] = scored_rows(model, samples)
            self.scores: LogProbs = _scores(model, self.rows)

    def loss(self) -> float:
        """Return how unlikely the samples' replies are to the file, the mean of their scored tokens, in nats."""
        lost = [
            -float(scores[place, row.token_ids[position + 1]])
            for row, scores in zip(self.rows, self.scores, strict=True)
            for place, position in enumerate(row.positions)
        ]
        return sum(lost) / len(lost)

    def distance(self, path: Path, adapter: Path | None = None) -> dict[Part | None, Distance]:
        """Return how far a file, with an adapter's applied if there is one, is from the F16 file.

        Returns:
            by part of replies, and over all under None.
        """
        with LlamaFile(path, SCORED_TOKENS, adapter) as model:
            return self.compare(_scores(model, self.rows))

    def compare(self, scores: LogProbs, *, is_expected: bool = False) -> dict[Part | None, Distance]:
        """Return how far scores are from the F16 file's, or it is from them if they are what is right."""
        first, second = (scores, self.scores) if is_expected else (self.scores, scores)
        measured = _by_position(first, second)
        parts = [part for row in self.rows for part in row.parts]
        return {None: _distance(measured)} | {
            part: _distance(measured[:, [one == part for one in parts]]) for part in sorted(set(parts))
        }


def _scores(model: LlamaFile, rows: Iterable[Scored]) -> LogProbs:
    return [model.log_probs(row.token_ids, row.positions) for row in rows]


def compare(expected: LogProbs, actual: LogProbs) -> Distance:
    """Return how far `actual` is from `expected`, over all positions."""
    return _distance(_by_position(expected, actual))


def _by_position(expected: LogProbs, actual: LogProbs) -> NDArray[Any]:
    """Return for each position, text by text: KL, largest difference, whether the first choice is clear, and the same.

    Returns:
        float64 (4, position).
    """
    import numpy

    texts = []
    for theirs, ours in zip(expected, actual, strict=True):
        kl = (numpy.exp(theirs) * (theirs - ours)).sum(axis=1)
        best = numpy.partition(theirs, -2, axis=1)[:, -2:]
        is_clear = best[:, 1] - best[:, 0] >= TINY_MARGIN
        agrees = theirs.argmax(axis=1) == ours.argmax(axis=1)
        texts.append(numpy.stack([kl, numpy.abs(theirs - ours).max(axis=1), is_clear, agrees]).astype(numpy.float64))
    return numpy.concatenate(texts, axis=1)


def _distance(measured: NDArray[Any]) -> Distance:
    kl, delta, is_clear, agrees = measured
    clear = agrees[is_clear > 0]
    return Distance(
        positions=len(kl),
        mean_kl=float(kl.mean()),
        max_abs_delta=float(delta.max()),
        top1_agreement=float(clear.mean()) if clear.size else 1.0,
        top1_agreement_all=float(agrees.mean()),
    )


def check_texts(base: Path, template: ChatTemplate, gguf_path: Path, samples: Sequence[Sample]) -> TokenReport:
    """Return how much was compared between a base's tokenizer with a template and a GGUF file.

    Args:
        base: the base model's folder.
        template: what the conversations were rendered with.
        gguf_path: what `convert` wrote.
        samples: their texts are compared, and many nasty ones.

    Raises:
        GateError: template, tokens or the end of a turn are not the same.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    check_template(template, tokenizer, gguf_path)
    with LlamaFile(gguf_path) as model:
        texts = [sample.text for sample in samples]
        tokens = check_tokens(model, tokenizer, texts)
        if texts and model.tokenize(texts[0], is_start=True) != model.tokenize(texts[0]):
            raise GateError(f"gate tokens: {gguf_path} has a BOS token put before texts, which begin with their own")
        check_end_of_turn(model, tokenizer, template)
    return TokenReport(len(texts) + len(NASTY_TEXTS), tokens)


def check_logits(reference: Reference, f16_reference: F16Reference, limits: GateLimits) -> Distance:
    """Return how far the F16 file is from the model that was trained. Raises GateError over the limits."""
    return _require_same(
        "logits", f16_reference.compare(reference.log_probs(f16_reference.rows), is_expected=True)[None], limits
    )


def check_beyond(
    reference: Reference, f16: Path, f16_reference: F16Reference, original_context: int, limits: GateLimits
) -> Distance:
    """Return how far the F16 file is from the model that was trained, beyond the original context of scaled positions.

    Raises:
        GateError: over the limits.
    """
    ids: list[int] = []
    while len(ids) < original_context + BEYOND_TOKENS:
        for row in f16_reference.rows:
            ids += row.token_ids
    ids = ids[: original_context + BEYOND_TOKENS]
    positions = list(range(len(ids) - BEYOND_POSITIONS, len(ids)))
    row = Scored(ids, positions, ["prompt"] * len(positions))
    with LlamaFile(f16, len(ids)) as model:
        actual = _scores(model, [row])
    return _require_same("beyond context", compare(reference.log_probs([row]), actual), limits)


def check_adapter(f16_reference: F16Reference, base: Path, adapter: Path, limits: GateLimits) -> Distance:
    """Return how far a base's file with an adapter's applied is from the merged file. Raises as check_logits."""
    return _require_same(f"adapter: {adapter.name}", f16_reference.distance(base, adapter)[None], limits)


def _require_same(gate: str, found: Distance, limits: GateLimits) -> Distance:
    if not found.mean_kl < limits.logits_kl:
        raise GateError(f"gate {gate}: mean KL {found.mean_kl:.2g} nats, the limit is {limits.logits_kl:g}")
    if not found.top1_agreement >= limits.logits_top1:
        raise GateError(f"gate {gate}: first choices agree in {found.top1_agreement:.4f}, limit {limits.logits_top1:g}")
    return found


def check_quantized(
    f16_reference: F16Reference, path: Path, limits: GateLimits, adapter: Path | None = None
) -> dict[Part | None, Distance]:
    """Return how far a quantized file is from the F16 file, by part of replies. Raises GateError if it is too far."""
    found = f16_reference.distance(path, adapter)
    bounds: tuple[tuple[Part | None, float], ...] = ((None, limits.quant_kl), ("call", limits.call_kl))
    hint = "use a quantization with more bits, or keep some tensors in a larger type with --tensor"
    for part, limit in bounds:
        if part in found and not found[part].mean_kl < limit:
            what = f"mean KL {found[part].mean_kl:.2g} nats{' on calls' if part else ''}"
            raise GateError(f"gate quantized: {path.name}: {what}, the limit is {limit:g}", hint=hint)
    if "call" in found and not found["call"].top1_agreement >= limits.call_top1:
        share = found["call"].top1_agreement
        raise GateError(
            f"gate quantized: {path.name}: first choices on calls agree in {share:.3f}, limit {limits.call_top1:g}",
            hint=hint,
        )
    return found


def check_endings(
    gguf_path: Path,
    template: ChatTemplate,
    samples: Sequence[Sample],
    limits: GateLimits,
    adapter: Path | None = None,
) -> Endings:
    """Return how many replies to prompts end with the end-of-turn token by themselves.

    Raises:
        GateError: too few do.
        UsageError: no prompt is short enough to be tried.
    """
    with LlamaFile(gguf_path, PROMPT_TOKENS + REPLY_TOKENS, adapter) as model:
        prompts = (model.tokenize(sample.prompt) for sample in samples[:SCORED_TEXTS])
        rows = [row for row in prompts if len(row) <= PROMPT_TOKENS]
        if not rows:
            raise UsageError(f"the run's sample.jsonl has no prompt of at most {PROMPT_TOKENS} tokens")
        end_of_turn = model.tokenize(template.end_of_turn)
        ended = sum(model.reply(row, REPLY_TOKENS)[-1:] == end_of_turn for row in rows)
    if ended < limits.endings * len(rows):
        raise GateError(
            f"gate endings: {gguf_path.name}: {ended} of {len(rows)} replies end with {template.end_of_turn} within "
            f"{REPLY_TOKENS} tokens",
            hint="train longer, or check that the base's template is the run's; --gate endings=0 exports it all the "
            "same",
        )
    return Endings(ended, len(rows))


def check_tokens(model: LlamaFile, tokenizer: Any, texts: Sequence[str]) -> int:
    """Return how many tokens were compared. Raises GateError at the first text that both sides cut differently."""
    added = [str(token) for number, token in tokenizer.added_tokens_decoder.items() if number < model.vocabulary_size]
    added = [text for text in added if text.strip("\u2581")]  # but for runs of what llama.cpp takes for blanks
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
        turns: tuple[Message, ...] = (
            Message("system", text),
            Message("user", text),
            Message("assistant", "", text.strip(), (ToolCall("light_on", {"device": text}),)),
            Message("tool", text),
            Message("assistant", text, text.strip()),
            Message("user", text),
        )
        plain = [{"role": turn.role, "content": body_of(turn)} for turn in turns]
        try:
            theirs = tokenizer.apply_chat_template(
                plain, chat_template=template.source, tokenize=False, add_generation_prompt=True
            )
            ours = template.render(turns, add_generation_prompt=True)
        except TemplateError as error:
            raise GateError(f"gate template: {template.name} cannot render a conversation: {error}") from error
        if theirs != ours:
            raise GateError(f"gate template: Hugging Face renders {template.name} to other text, for {text!r}")
        rest = theirs
        for turn in turns:
            _, found, rest = rest.partition(body_of(turn))
            if not found:
                raise GateError(f"gate template: {template.name} drops or changes what stands in a turn of {turn.role}")
