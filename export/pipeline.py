"""A run of `edgewright train` to a bundle: convert, check, quantize, check, write. Each stage is a file of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from devices.durable import sha256_of
from devices.errors import UsageError
from devices.site.site import load_site
from edge_agent.evaluation.cases import Case
from edge_agent.evaluation.gate_limits import GateLimits
from edge_agent.evaluation.smoke import Smoke
from export.architectures import Shape, read_shape
from export.bundle.writer import Parts, require_writable, write_bundle
from export.convert.adapter_gguf import write_adapter
from export.convert.gguf_writer import ConvertReport, convert, header_bytes, read_config
from export.convert.merged_checkpoint import save_merged
from export.gates.parity import (
    Distance,
    F16Reference,
    check_adapter,
    check_beyond,
    check_endings,
    check_logits,
    check_quantized,
    check_texts,
)
from export.gates.smoke import record_smoke
from export.gates.tasks import Tasks, better_base, check_tasks
from export.progress import ProgressBar, no_progress_bar
from export.quantize.importance_matrix import mean_squares, measure_importance, write_importance
from export.quantize.plan import IMPROVED, Plan, Quant, plan
from export.quantize.targets import choose_quant, load_target
from export.trained.reference import Reference
from export.trained.run import Run, gate_limits, provenance_of, read_run
from export.trained.samples import Part, Sample, read_samples

MergeBase = Literal["original", "nf4", "better"]


@dataclass(frozen=True)
class ExportOptions:
    """What else an export may be asked for.

    Attributes:
        merge_base: what the adapter is merged into: the base as it is, what NF4 keeps of it, as training saw it, or
            whichever of the two measures better.
        merged: a folder for the merged model as Hugging Face has it; None writes none.
        is_unmerged: whether the adapter stays a file of its own, over the base's, so that a box that has the base needs
            the adapter only.
        tensor_types: types by pattern of names, instead of the mix's.
        weighs_inputs: whether types below 8 bits are chosen by an importance matrix.
        gates: NAME=VALUE, instead of the recipe's limits.
        tasks: cases for the last gate; None leaves it out.
    """

    merge_base: MergeBase = "original"
    merged: Path | None = None
    is_unmerged: bool = False
    tensor_types: Mapping[str, str] = field(default_factory=dict)
    weighs_inputs: bool = True
    gates: Sequence[str] = ()
    tasks: Tasks | None = None


def export_run(
    run_path: Path,
    quants: Sequence[Quant],
    out: Path,
    *,
    work: Path | None = None,
    base: Path | None = None,
    smoke: Sequence[Case] = (),
    name: str | None = None,
    options: ExportOptions | None = None,
    log: Callable[[str], None] = lambda line: None,
    progress_bar: ProgressBar = no_progress_bar,
) -> dict[str, Any]:
    """Make a bundle from a run, through every gate; return its export.json.

    Args:
        run_path: the run's folder.
        quants: what to make; the last goes into the bundle.
        out: the bundle's folder.
        work: where the GGUF files are kept, as model-Q8_0.gguf and so on; None is `gguf` beside the bundle.
        base: the base model's folder, if it is not where the run says.
        smoke: cases that the bundle takes along, with what its model does with them; none are allowed.
        name: the model's name; None is the name of the bundle's folder.
        options: what else; nothing if None.
        log: is told each stage, in a line.
        progress_bar: opens a progress bar for a file that is being written: (label, bytes in all).

    Raises:
        UsageError: the run, the base or a flag cannot be used.
        ContractChanged: the run was trained for another template, system prompt or tools.
        GateError: a gate failed; no bundle is written.
    """
    options = options or ExportOptions()
    require_writable(out)
    run = read_run(run_path, base)
    limits = gate_limits(run, options.gates)
    if options.merge_base != "original" and not run.nf4_dtype:
        raise UsageError(f"{run.path} was not trained on an NF4 base", hint="leave out --merge-base")
    samples = read_samples(run.sample_path, run.template)
    job = _ExportJob(
        run=run,
        shape=read_shape(read_config(run.base)),
        samples=samples,
        limits=limits,
        options=options,
        name=name or out.name,
        work=work or out.parent / "gguf",
        log=log,
        progress_bar=progress_bar,
    )
    plans = job.plans(quants)
    provenance = provenance_of(run)
    job.stage("hash", f"base {run.base}, adapter {run.adapter}")
    job.choose_base()
    job.write_merged()
    f16_reference = job.convert_and_check(wants_importance=options.weighs_inputs and bool(IMPROVED & set(quants)))
    files = job.quantize_and_check(plans, f16_reference)
    job.check_tasks(files)
    recorded = job.record_smoke(smoke, files[quants[-1]]) if smoke else None
    facts = {
        kind: {"path": str(path), "sha256": sha256_of(path), "bytes": path.stat().st_size}
        for kind, path in files.items()
    }
    result = provenance | {
        "name": job.name,
        "quant": quants[-1],
        "merge_base": job.merge_base,
        "is_unmerged": options.is_unmerged,
        "gguf": facts,
        "gates": job.gates | {"limits": limits.model_dump()},
        "seconds": job.seconds,
    }
    parts = Parts(
        name=job.name,
        quant=quants[-1],
        model=files[quants[-1]],
        site=run.site_path,
        template=run.template,
        smoke=recorded,
        export=result,
        adapter=job.adapter if options.is_unmerged else None,
    )
    write_bundle(parts, out)
    job.stage("bundle", f"bundle {out} with {quants[-1]}")
    return result


def planned_sizes(
    run_path: Path, quants: Sequence[Quant], base: Path | None, name: str, options: ExportOptions
) -> list[tuple[Plan, int]]:
    """Return the plan for each quantization of a run's model, with the size of its file in bytes; writes nothing.

    Raises:
        UsageError: as export_run.
    """
    run = read_run(run_path, base)
    shape = read_shape(read_config(run.base))
    plans = _plans(shape, quants, options).values()
    return [
        (one, one.data_bytes + header_bytes(run.base, one, template=run.template, name=name, metadata=run.metadata))
        for one in plans
    ]


def _plans(shape: Shape, quants: Sequence[Quant], options: ExportOptions) -> dict[Quant, Plan]:
    return {kind: plan(shape, kind, options.tensor_types, has_importance=options.weighs_inputs) for kind in quants}


def quant_for(target: str, run_path: Path, base: Path | None, log: Callable[[str], None]) -> Quant:
    """Return the best quantization of a run's model for a target, and say why it is. Raises UsageError if none fits."""
    choice = choose_quant(load_target(target), read_shape(read_config(read_run(run_path, base).base)))
    log(f"{target}: {choice.reason}")
    return choice.quant


@dataclass
class _ExportJob:
    """The stages of one export, and what they measured."""

    run: Run
    shape: Shape
    samples: Sequence[Sample]
    limits: GateLimits
    options: ExportOptions
    name: str
    work: Path
    log: Callable[[str], None]
    progress_bar: ProgressBar
    merge_base: str = "original"
    importance: dict[str, Any] = field(default_factory=dict)
    gates: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    start_s: float = field(default_factory=time.monotonic)

    @property
    def f16(self) -> Path:
        return self.work / "model-F16.gguf"

    @property
    def adapter(self) -> Path:
        return self.work / "adapter.gguf"

    @property
    def nf4_dtype(self) -> str:
        return self.run.nf4_dtype if self.merge_base == "nf4" else ""

    def stage(self, key: str, line: str) -> None:
        self.seconds[key] = time.monotonic() - self.start_s - sum(self.seconds.values())
        self.log(f"{line} ({self.seconds[key]:.1f} s)")

    def plans(self, quants: Sequence[Quant]) -> dict[Quant, Plan]:
        plans = _plans(self.shape, quants, self.options)
        for kind, one in plans.items():
            for line in one.exceptions:
                self.log(f"{kind}: {line}")
        return plans

    def choose_base(self) -> None:
        """Settle what the adapter is merged into."""
        if self.options.merge_base != "better":
            self.merge_base = self.options.merge_base
            return
        candidates = {}
        for kind in ("original", "nf4"):
            self.merge_base = kind
            candidates[kind] = self.work / f"merged-into-{kind}-F16.gguf"
            self._convert(candidates[kind], self.run.adapter)
        try:
            self.merge_base, measured = better_base(candidates, self.samples, self.options.tasks, self.run.template)
        finally:
            for path in candidates.values():
                path.unlink(missing_ok=True)
        self.gates["merge_base"] = measured
        summary = ", ".join(f"{kind}: {_summary(found)}" for kind, found in measured.items())
        self.stage("merge base", f"merged into {self.merge_base} ({summary})")

    def write_merged(self) -> None:
        if self.options.merged:
            save_merged(self.run.base, self.run.adapter, self.options.merged, self.nf4_dtype)
            self.stage("merged", f"{self.options.merged}, as Hugging Face has it")

    def convert_and_check(self, *, wants_importance: bool) -> F16Reference:
        """Write the F16 file and hold it against the model that was trained; return it as a yardstick for others."""
        run, limits = self.run, self.limits
        made = self._convert(self.f16, run.adapter)
        size = f"{sum(made.types.values())} tensors, {made.merged_modules} merged"
        self.stage("convert", f"{self.f16}: {size}, {made.size_bytes / 1e6:.1f} MB")
        texts = check_texts(run.base, run.template, self.f16, self.samples)
        f16_reference = F16Reference(self.f16, self.samples)
        reference = Reference(run.base, run.adapter, self.nf4_dtype)
        logits = check_logits(reference, f16_reference, limits)
        self.gates |= {"texts": asdict(texts), "logits": asdict(logits)}
        self.stage("parity", f"same tokens ({texts.tokens}), {_distance(logits, 'the trained model')}")
        original = self.shape.rope.original_context
        if original and original < self.shape.context_tokens and limits.beyond_context:
            beyond = check_beyond(reference, self.f16, f16_reference, original, limits)
            self.gates["beyond_context"] = asdict(beyond)
            self.stage("beyond", f"after {original} tokens, {_distance(beyond, 'the trained model')}")
        if wants_importance:
            sums, tokens = measure_importance(reference, self.shape, self.f16, self.samples)
            self.importance = mean_squares(sums, tokens)
            path = self.work / "imatrix.gguf"
            write_importance(path, sums, tokens, run.facts.data.path)
            self.gates["importance"] = {"path": str(path), "sha256": sha256_of(path), "tokens": tokens}
            self.stage("importance", f"{path}: inputs of {len(self.importance)} tensors on {tokens} tokens")
        del reference
        if self.options.is_unmerged:
            size_bytes = write_adapter(self.shape, run.adapter, self.adapter, self.name, run.metadata)
            self._convert(self.f16, None)  # the base alone takes the merged one's place
            found = check_adapter(f16_reference, self.f16, self.adapter, limits)
            self.gates["adapter"] = asdict(found)
            self.stage("adapter", f"{self.adapter}: {size_bytes / 1e6:.1f} MB, over {self.f16} {_distance(found)}")
        return f16_reference

    def quantize_and_check(self, plans: Mapping[Quant, Plan], f16_reference: F16Reference) -> dict[str, Path]:
        """Write each quantized file, read it back and hold it against the F16 file; return all by name."""
        self.gates |= {"types": {}, "quantized": {}, "endings": {}}
        files: dict[str, Path] = {}
        merging, adapter_beside = (None, self.adapter) if self.options.is_unmerged else (self.run.adapter, None)
        if "F16" not in plans:
            self.f16.unlink()  # the yardstick has what it said: the disk never holds more than one file more
        for kind, planned in plans.items():
            file = self.work / f"model-{kind}.gguf"
            summary = "the reference"
            if kind != "F16":
                self.gates["types"][kind] = self._convert(file, merging, planned).types
                found = check_quantized(f16_reference, file, self.limits, adapter_beside)
                self.gates["quantized"][kind] = {part or "all": asdict(one) for part, one in found.items()}
                summary = _by_part(found)
            if self.limits.endings:
                endings = check_endings(file, self.run.template, self.samples, self.limits, adapter_beside)
                self.gates["endings"][kind] = asdict(endings)
            files[kind] = file
            self.stage(kind, f"{file}: {file.stat().st_size / 1e6:.1f} MB, {summary}")
        return files

    def check_tasks(self, files: Mapping[str, Path]) -> None:
        tasks = self.options.tasks
        if tasks:
            run = self.run
            adapter = self.adapter if self.options.is_unmerged else None
            found = check_tasks(tasks, run.path, run.base, files, adapter, run.template, self.limits)
            self.gates["tasks"] = found
            summary = ", ".join(f"{name} {found[name]['count']}" for name in ("Hugging Face", *files))
            self.stage("tasks", f"of {found['cases']} tasks done: {summary}")

    def record_smoke(self, cases: Sequence[Case], file: Path) -> Smoke:
        """Have the file that is bundled do the smoke cases, by the engine that a box has."""
        site, adapter = load_site(self.run.site_path), self.adapter if self.options.is_unmerged else None
        smoke, right = record_smoke(file, adapter, site, self.run.template, cases)
        self.gates["smoke"] = {"cases": len(cases), "right": right}
        self.stage("smoke", f"{len(cases)} smoke cases recorded, {right} of them done right")
        return smoke

    def _convert(self, out: Path, adapter: Path | None, planned: Plan | None = None) -> ConvertReport:
        planned = planned or plan(self.shape, "F16")
        with self.progress_bar(out.name, planned.data_bytes) as progress:
            return convert(
                self.run.base,
                adapter,
                out,
                template=self.run.template,
                name=self.name if adapter else self.run.base.name,
                metadata=self.run.metadata if adapter else {"template": self.run.template.name},
                nf4_dtype=self.nf4_dtype,
                planned=planned,
                importance=self.importance,
                progress=progress,
            )


def _summary(found: Mapping[str, Any]) -> str:
    tasks = f"{found['tasks_done']} tasks, " if "tasks_done" in found else ""
    return f"{tasks}loss {found['loss']:.5f}"


def _distance(found: Distance, other: str = "F16") -> str:
    return f"{found.mean_kl:.1e} nats from {other}, first choices {found.top1_agreement_all:.3f}"


def _by_part(found: Mapping[Part | None, Distance]) -> str:
    parts = ", ".join(f"{part} {one.mean_kl:.1e}" for part, one in found.items() if part)
    return f"{_distance(found[None])} ({parts})"
