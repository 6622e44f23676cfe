"""The Hugging Face engine: greedy replies in batches, from a 16-bit or NF4 base with or without an adapter.

The prompts of a batch mostly share the static prefix: its keys and values are computed once and laid under every row.

Padding between tokens would count as part of an attention window, so prompts that outgrow one are done one by one.

Does not guard against: near-ties. A batch multiplies matrices in another shape than a single row does, so two tokens
whose logits differ by rounding only may change places.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import torch
from llguidance.hf import from_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils.logging import disable_progress_bar

from devices.errors import UnavailableError, UsageError
from edge_agent.engine.decoding_loop import DecodingLoop
from edge_agent.engine.engine import Completion, Limits, Request, common_length, peak_resident_bytes, require_room
from edge_agent.grammar.grammar import Grammar
from edge_agent.grammar.token_mask import TEXT_SLICES, Matcher, Vocabulary
from edge_agent.run_facts import RUN_FILE, read_run_facts
from edge_agent.wire.chat_template import END_OF_TURN
from finetune.inference.batch_decoding import ReplyBatch, States, new_cache
from finetune.recipe import path_or_name


class HuggingFaceEngine:
    """Greedy replies from a Hugging Face model: fp32 on CPU, bf16 on CUDA."""

    name = "huggingface"

    def __init__(
        self,
        base: str | Path,
        adapter: Path | None = None,
        *,
        device: Literal["cpu", "cuda"] = "cpu",
        load_in_4bit: bool = False,
        batch_size: int = 64,
        end_of_turn: str | None = None,
    ) -> None:
        """Load a base model and its adapter.

        Args:
            base: a folder, or a name on the hub.
            adapter: a folder that peft saved; merged in fp32, kept apart in bf16 and NF4.
            device: where to run.
            load_in_4bit: quantize the base to NF4, as QLoRA trains it.
            batch_size: rows that run together.
            end_of_turn: the chat template's end-of-turn token; None takes the tokenizer's EOS.

        Raises:
            UsageError: not a model folder, no such device, or a token that the vocabulary does not have.
            UnavailableError: the hub gave no model.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise UsageError("there is no CUDA device", hint="use the device cpu")
        self._batch_size = batch_size
        self._tokenizer = _load(AutoTokenizer, base, {})
        self._model = _load_model(base, adapter, device, load_in_4bit)
        config = self._model.config.get_text_config()
        self.context_tokens: int = config.max_position_embeddings
        self._layers: int = config.num_hidden_layers
        self._window: int | None = getattr(config, "sliding_window", None)
        self._vocabulary = _vocabulary_of(self._tokenizer, self._model, end_of_turn)
        self._prefix: list[int] = []
        self._states: States = []  # of the prefix, one row

    def memory_bytes(self) -> int:
        """Return the peak resident memory of this process, plus that of torch on the GPU, in bytes."""
        device = self._model.device
        on_gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
        return peak_resident_bytes() + int(on_gpu)

    def prime(self, prefix: str) -> bool:
        """Compute the prefix's keys and values; none are kept. Raises UsageError if it does not fit the context."""
        tokens = self._tokenize(prefix)
        require_room(len(tokens), Limits(reply_tokens=0), self.context_tokens)
        self._know(tokens)
        return False

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Return one greedy completion for each request, in order; a batch's time is divided evenly.

        Raises:
            UsageError: a prompt and its reply do not fit the context.
            UnavailableError: the grammar failed, or the GPU ran out of memory.
        """
        prompts = [self._tokenize(request.prompt) for request in requests]
        for prompt, request in zip(prompts, requests, strict=True):
            require_room(len(prompt), request.limits, self.context_tokens)
        longest = max(
            (len(one) + two.limits.reply_tokens for one, two in zip(prompts, requests, strict=True)), default=0
        )
        batch_size = 1 if self._window and longest > self._window else self._batch_size
        order = sorted(range(len(requests)), key=lambda index: len(prompts[index]))  # for little padding
        completions: dict[int, Completion] = {}
        for start in range(0, len(order), batch_size):
            part = {index: (requests[index], prompts[index]) for index in order[start : start + batch_size]}
            try:
                completions |= self._complete(part)
            except torch.cuda.OutOfMemoryError as error:
                raise UnavailableError(
                    f"the GPU has no memory for a batch of {len(part)}", hint="use a smaller batch_size"
                ) from error
        return [completions[index] for index in range(len(requests))]

    def accepts(self, grammar: Grammar, token_ids: Sequence[int]) -> bool:
        """Return whether the grammar would have changed nothing about this free reply; evaluation asks."""
        return self._vocabulary.would_give(grammar, token_ids)

    def close(self) -> None:
        """Let the model go."""
        self._model, self._states = None, []

    def _tokenize(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    @torch.inference_mode()
    def _complete(self, part: dict[int, tuple[Request, list[int]]]) -> dict[int, Completion]:
        started = time.monotonic()
        prompts = [prompt for _, prompt in part.values()]
        shared = reduce(lambda known, prompt: known[: common_length(known, prompt)], prompts)
        shared = shared[: min(map(len, prompts)) - 1]  # every row's last token is evaluated, for its logits
        loops = [
            DecodingLoop(request, prompt, len(shared), Matcher(self._vocabulary, request.grammar))
            for request, prompt in part.values()
        ]
        reused = [self._know(shared)] + [len(shared)] * (len(loops) - 1)  # the first pays for what was not known yet
        batch = ReplyBatch(self._model, loops, self._known_states(len(shared)), self._layers)
        first_logits_at = None
        while batch.has_work():
            batch.step()
            first_logits_at = first_logits_at or time.monotonic()
        ended = time.monotonic()
        first_logits_at = first_logits_at or ended
        prefill_s, decode_s = (first_logits_at - started) / len(loops), (ended - first_logits_at) / len(loops)
        return {
            index: replace(
                loop.completion(self._vocabulary.text_of), reused_tokens=known, prefill_s=prefill_s, decode_s=decode_s
            )
            for index, loop, known in zip(part, loops, reused, strict=True)
        }

    @torch.inference_mode()
    def _know(self, tokens: list[int]) -> int:
        """Make sure that the states of these tokens are known; return how many already were."""
        known = common_length(self._prefix, tokens)
        if known < len(tokens):
            cache = new_cache(self._known_states(known), self._layers, 1, len(tokens))
            ids = torch.tensor([tokens[known:]], device=self._model.device)
            positions = torch.arange(known, len(tokens), device=self._model.device)[None]
            self._model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
            self._states = [(layer.keys, layer.values) for layer in cache.layers]
            self._prefix = list(tokens)
        return known

    def _known_states(self, count: int) -> States:
        return [(keys[:, :, :count], values[:, :, :count]) for keys, values in self._states] if count else []


def _load_model(base: str | Path, adapter: Path | None, device: str, load_in_4bit: bool) -> Any:
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    options: dict[str, Any] = {"dtype": dtype, "device_map": {"": device}}
    if load_in_4bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    model = _load(AutoModelForCausalLM, base, options)
    if adapter is not None:
        from peft import PeftModel

        try:
            model = PeftModel.from_pretrained(model, str(adapter))
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise UsageError(f"cannot put the adapter {adapter} on {base}: {error}") from error
        if dtype == torch.float32 and not load_in_4bit:
            model = model.merge_and_unload()
    return model.eval()


def _load(loader: Any, base: str | Path, options: dict[str, Any]) -> Any:
    is_folder = Path(base).is_dir()
    if is_folder:
        disable_progress_bar()
    try:
        return loader.from_pretrained(str(base), local_files_only=is_folder, **options)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        if is_folder:
            raise UsageError(f"cannot load the model folder {base}: {first_line}") from error
        raise UnavailableError(
            f"cannot get the model {base}: {first_line}",
            hint="it is no folder here; for a name on the hub, check the network and whether you may read it",
        ) from error


def _vocabulary_of(tokenizer: Any, model: Any, end_of_turn: str | None) -> Vocabulary:
    size = model.get_output_embeddings().weight.shape[0]
    end_token = tokenizer.eos_token_id if end_of_turn is None else tokenizer.get_vocab().get(end_of_turn)
    if end_token is None or end_token >= size:
        raise UsageError(f"the vocabulary has no end-of-turn token {end_of_turn or '(the tokenizer names no EOS)'}")
    if tokenizer.vocab_size > size:  # without added tokens, of which Gemma 3 has one for images that no text model has
        raise UsageError(f"the tokenizer has {tokenizer.vocab_size} tokens but the model only {size}")
    tokens = from_tokenizer(tokenizer, n_vocab=max(size, len(tokenizer)), eos_token=end_token, slices=TEXT_SLICES)
    return Vocabulary(tokens, size)


def open_engine(
    model: str,
    *,
    template: str = "chatml",
    device: Literal["cpu", "cuda"] = "cpu",
    load_in_4bit: bool = False,
    adapter: str = "",
) -> HuggingFaceEngine:
    """Open a run folder with its base and adapter, a model folder, `starter`, or a name on the hub.

    Args:
        model: which.
        template: name of the chat template, for what is no run.
        device: where it runs.
        load_in_4bit: as NF4.
        adapter: a folder that peft saved, for what is no run; "" for none.

    Raises:
        UsageError: not a model, or no such device.
        UnavailableError: the hub gave no model.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of optional kernels, as of a failure
    base, folder = path_or_name(model), Path(adapter) if adapter else None
    if (Path(model) / RUN_FILE).is_file():
        run = read_run_facts(Path(model))
        base, folder, template = path_or_name(run.base), Path(model) / "adapter", run.template
    end_of_turn = END_OF_TURN[template]
    return HuggingFaceEngine(base, folder, device=device, load_in_4bit=load_in_4bit, end_of_turn=end_of_turn)
