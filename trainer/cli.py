"""``trainer --mixture manifests/mix.json``, ``trainer report``, ``trainer export``: it alone prints and exits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from dataeng.errors import ConfigError, DataengError
from dataeng.formats.reweighting import Method
from dataeng.packing.rows import METHODS
from trainer.config import Decay, OnSpike, OptimizerName, Parallelism, Schedule, TrainConfig, derive_config
from trainer.model.presets import MATRICES, PRESETS, RopeKind
from trainer.options import DEFAULT_STEPS, Options
from trainer.parallel.failure import last_word, let_speak

if TYPE_CHECKING:
    from trainer.loop import TrainingReport


# The panels of `trainer train --help`, in the order of their first options.
DATA = partial(typer.Option, rich_help_panel="Data")
MODEL = partial(typer.Option, rich_help_panel="Model")
OPTIMIZATION = partial(typer.Option, rich_help_panel="Optimization")
WEIGHTS = partial(typer.Option, rich_help_panel="Mixture weights")
FOLDER = partial(typer.Option, rich_help_panel="Run folder and checkpoints")
WATCHING = partial(typer.Option, rich_help_panel="Held-out losses and logs")
HARDWARE = partial(typer.Option, rich_help_panel="Hardware and memory")


class TrainUnlessTold(TyperGroup):
    """Commands of which the first need not be named: ``trainer --mixture …`` is ``trainer train --mixture …``.

    Ctrl-C before the first step, or a second one, ends a command with a sentence; typer itself would say nothing.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] != "--help"):
            args = ["train", *args]
        if args[0].endswith(".json") and args[0] not in self.commands:
            ctx.fail(f"a manifest is named by an option: trainer --mixture {args[0]}")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            if os.environ.get("RANK", "0") == "0":
                sys.stderr.write("stopped. What was saved is kept: run the same command again to go on.\n")
            sys.exit(130)


app = typer.Typer(
    add_completion=False,
    cls=TrainUnlessTold,
    pretty_exceptions_enable=False,
    help="Train on mixtures of packs: `trainer --mixture manifests/mix.json` is short for `trainer train --mixture …`; "
    "`trainer train --help` lists its options.",
)


@app.command()
def train(
    mixture: Annotated[Path, DATA(help="Mixture manifest (mix.json), as `dataeng mix` writes it.")],
    packing: Annotated[
        str | None, DATA(help=f"How documents become rows: {', '.join(METHODS)}. Default: the manifest's.")
    ] = None,
    sequence_length: Annotated[int | None, DATA(help="Tokens per row. Default: the preset's.")] = None,
    batch_size: Annotated[int | None, DATA(help="Rows per step. Default: the preset's.")] = None,
    batch_ramp: Annotated[
        tuple[int, int] | None,
        DATA(help="Start with so many ROWS a step and grow to the batch size over STEPS.", metavar="ROWS STEPS"),
    ] = None,
    seed: Annotated[int, DATA(help="Decides initial weights and the order of rows.")] = 0,
    verify_packs: Annotated[
        bool | None,
        DATA(
            "--verify-packs/--no-verify-packs",
            help="Check the packs' SHA-256 at the start. Default: when they are below 4 GB together.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        MODEL(help=f"Model size: {', '.join(PRESETS)}. Default: tiny, or the one nearest to the model of --init-from."),
    ] = None,
    init_from: Annotated[
        Path | None,
        MODEL(
            help="Start from a Llama, Qwen2 or Qwen3 model in Hugging Face's format, in its shape. Of the preset are "
            "then batch, length of rows and learning rate."
        ),
    ] = None,
    document_mask: Annotated[
        bool, MODEL("--document-mask/--no-document-mask", help="Tokens see their own document only.")
    ] = True,
    qk_norm: Annotated[bool, MODEL("--qk-norm", help="Normalize queries and keys, as Qwen3 does.")] = False,
    tied_embeddings: Annotated[
        bool | None, MODEL(help="One matrix for input and output. Default: the preset's.")
    ] = None,
    rope_theta: Annotated[float | None, MODEL(help="Base of the rotary frequencies.")] = None,
    rope_scaling: Annotated[
        str | None,
        MODEL(help=f"For longer contexts: {', '.join(get_args(RopeKind))}, e.g. yarn:4.", metavar="KIND:FACTOR"),
    ] = None,
    lora: Annotated[int | None, MODEL(help="Train adapters of this rank, nothing else.", metavar="RANK")] = None,
    lora_alpha: Annotated[
        float | None, MODEL(help="Adapters are scaled by alpha / rank. Default: twice the rank.")
    ] = None,
    lora_targets: Annotated[str, MODEL(help="Which matrices get adapters.")] = ", ".join(MATRICES),
    steps: Annotated[
        int | None, OPTIMIZATION(help=f"Optimizer steps. Default: {DEFAULT_STEPS}, or what --tokens takes.")
    ] = None,
    tokens: Annotated[
        str | None, OPTIMIZATION(help="In place of --steps: as many as read so many tokens, e.g. 500k or 2B.")
    ] = None,
    learning_rate: Annotated[
        float | None, OPTIMIZATION(help="Peak learning rate. Default: the preset's, for this optimizer.")
    ] = None,
    optimizer: Annotated[str, OPTIMIZATION(help=f"One of {', '.join(get_args(OptimizerName))}.")] = "adamw",
    weight_decay: Annotated[float, OPTIMIZATION(help="Decoupled; only matrices are decayed.")] = 0.1,
    schedule: Annotated[str, OPTIMIZATION(help=f"Learning rate: {', '.join(get_args(Schedule))}.")] = "wsd",
    decay: Annotated[str, OPTIMIZATION(help=f"Shape of wsd's decay: {', '.join(get_args(Decay))}.")] = "linear",
    decay_steps: Annotated[
        int | None, OPTIMIZATION(help="Steps of wsd's decay. Default: the last quarter of the run.")
    ] = None,
    final_factor: Annotated[float, OPTIMIZATION(help="What the learning rate ends at, as a part of its peak.")] = 0.0,
    warmup_steps: Annotated[
        int | None, OPTIMIZATION(help="Steps up to the peak. Default: a twentieth of the run.")
    ] = None,
    on_spike: Annotated[
        str, OPTIMIZATION(help=f"What to do about a step that is a spike: {', '.join(get_args(OnSpike))}.")
    ] = "skip",
    spike_threshold: Annotated[
        float, OPTIMIZATION(help="A loss or gradient so many robust deviations above its median is a spike.")
    ] = 6.0,
    reweighting: Annotated[
        str | None, WEIGHTS(help=f"Override the manifest's method: {', '.join(get_args(Method))}.")
    ] = None,
    normalization: Annotated[
        str,
        WEIGHTS(
            help="What weights are divided by: planned shares (unbiased), or the batch's own counts: planned, batch."
        ),
    ] = "planned",
    save_mixture: Annotated[
        Path | None, WEIGHTS(help="Where the manifest with learned weights goes. Default: <out>/mix.json.")
    ] = None,
    out: Annotated[Path | None, FOLDER(help="Run folder. Default: <run>/training/<manifest name>.")] = None,
    resume: Annotated[
        bool, FOLDER(help="Go on from the newest checkpoint, or discard what is there and start over.")
    ] = True,
    resume_from: Annotated[int | None, FOLDER(help="Go back to the checkpoint of this step.")] = None,
    checkpoint_every: Annotated[
        int | None, FOLDER(help="Steps between checkpoints. Default: a quarter of the run, at most 1,000.")
    ] = None,
    keep_checkpoints: Annotated[
        int, FOLDER(help="How many of the newest checkpoints stay; with --validate, the best one besides.")
    ] = 2,
    background_checkpoints: Annotated[
        bool, FOLDER("--background-checkpoints", help="Write checkpoints while training goes on.")
    ] = False,
    validate: Annotated[
        Path | None,
        WATCHING(help="A mixture manifest of held-out packs: their losses while the run goes on.", metavar="MANIFEST"),
    ] = None,
    validate_every: Annotated[
        int | None, WATCHING(help="Steps between validations. Default: with every checkpoint.")
    ] = None,
    validate_tokens: Annotated[int, WATCHING(help="Tokens to read of every held-out domain.")] = 50_000,
    log: Annotated[
        list[str] | None, WATCHING(help="Log to tensorboard, wandb or mlflow, too; may be given several times.")
    ] = None,
    update_ratio_every: Annotated[
        int, WATCHING(help="Steps between measurements of how far one moves the weights. 0: none.")
    ] = 50,
    peak_flops: Annotated[
        float | None,
        WATCHING(help="FLOP/s of one device, for MFU, such as 989e12. Default: known for common GPUs."),
    ] = None,
    device: Annotated[str | None, HARDWARE(help="cpu, cuda or cuda:N. Default: a GPU if there is one.")] = None,
    threads: Annotated[int | None, HARDWARE(help="CPU threads. Default: PyTorch's choice.")] = None,
    compile_model: Annotated[bool, HARDWARE("--compile/--no-compile", help="Use torch.compile.")] = False,
    accumulate: Annotated[int, HARDWARE(help="Parts that a step's batch is computed in, to save memory.")] = 1,
    recompute_every: Annotated[
        int, HARDWARE(help="Recompute every n-th layer in the backward pass; saves memory. 0: none.")
    ] = 0,
    parallel: Annotated[
        str, HARDWARE(help=f"With torchrun, how the model is spread: {', '.join(get_args(Parallelism))}.")
    ] = "ddp",
    replicas: Annotated[
        int, HARDWARE(help="Groups of ranks; each holds one copy of the weights, cut within the group.")
    ] = 1,
) -> None:
    """Train a decoder on a mixture, report the loss of every domain, and write back the learned weights."""
    options = Options(
        mixture=mixture,
        out=out,
        save_mixture=save_mixture,
        preset=preset,
        steps=steps,
        tokens=tokens,
        batch_size=batch_size,
        sequence_length=sequence_length,
        packing=packing,
        learning_rate=learning_rate,
        seed=seed,
        reweighting=reweighting,
        normalization=normalization,
        optimizer=optimizer,
        weight_decay=weight_decay,
        schedule=schedule,
        decay=decay,
        final_factor=final_factor,
        warmup_steps=warmup_steps,
        decay_steps=decay_steps,
        batch_ramp=batch_ramp,
        device=device,
        threads=threads,
        compile=compile_model,
        parallel=parallel,
        replicas=replicas,
        resume=resume,
        resume_from=resume_from,
        checkpoint_every=checkpoint_every,
        keep_checkpoints=keep_checkpoints,
        verify_packs=verify_packs,
        document_mask=document_mask,
        accumulate=accumulate,
        on_spike=on_spike,
        spike_threshold=spike_threshold,
        background_checkpoints=background_checkpoints,
        init_from=init_from,
        lora=lora,
        lora_alpha=lora_alpha,
        lora_targets=lora_targets,
        qk_norm=qk_norm,
        tied_embeddings=tied_embeddings,
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
        recompute_every=recompute_every,
        validate=validate,
        validate_every=validate_every,
        validate_tokens=validate_tokens,
        update_ratio_every=update_ratio_every,
        peak_flops=peak_flops,
    )
    with _errors_shown():
        _run(options, log or [])


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A training run's folder.")],
    to: Annotated[Path | None, typer.Option(help="The file to write. Default: <run>/report.html.")] = None,
) -> None:
    """Write curves, tables and incidents of a run as one HTML file."""
    with _errors_shown():
        from trainer.watching.report import write_report

        path = write_report(run, to)
        Console().print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A run's folder, a checkpoint's, or a Hugging Face model's.")],
    mixture: Annotated[Path, typer.Option(help="A mixture manifest of held-out packs.")],
    before: Annotated[
        Path | None, typer.Option(help="The model that this one was made from: what was learned, what forgotten?")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens to read of every domain.", min=1)] = 100_000,
    sequence_length: Annotated[
        int | None,
        typer.Option(help="Tokens per row. Default: 512, or the models' context where it is shorter.", min=2),
    ] = None,
    continuations: Annotated[int, typer.Option(help="Prompts of each domain to continue, scored.", min=0)] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N. Default: a GPU if there is one.")] = None,
) -> None:
    """Measure a model on held-out packs, domain by domain; with --before, what changed."""
    with _errors_shown():
        from trainer.evaluation.evaluate import evaluate_model, print_evaluation

        done = evaluate_model(model, mixture, before, tokens, sequence_length, continuations, device)
        print_evaluation(Console(), done)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A run's folder (its newest checkpoint), or one checkpoint's.")],
    to: Annotated[Path, typer.Option(help="New folder.")],
    dtype: Annotated[str, typer.Option(help="float32 (as trained), bfloat16 or float16.")] = "float32",
    adapter: Annotated[bool, typer.Option("--adapter", help="Of a LoRA run: the adapters alone, for PEFT.")] = False,
    max_file_size: Annotated[float, typer.Option(help="Largest file of weights, in GB.")] = 5.0,
) -> None:
    """Write a checkpoint as a Hugging Face model, which transformers, vLLM, lm-eval, TRL and PEFT read."""
    with _errors_shown():
        try:
            from trainer.huggingface.export import export_checkpoint
        except ModuleNotFoundError as error:
            raise ConfigError(f"exporting needs '{error.name}': pip install 'dataeng[trainer]'.") from error
        done = export_checkpoint(
            checkpoint, to, dtype=dtype, adapter=adapter, max_file_bytes=round(max_file_size * 1_000_000_000)
        )
        text = f"wrote {done.num_parameters:,} weights of step {done.step} to {done.folder}"
        Console().print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _errors_shown() -> Iterator[None]:
    """Turns an error that a person can understand into one red line, of one process, and exit code 1."""
    try:
        yield
    except (DataengError, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            error = DataengError(f"{error.filename}: {error.strerror}.")
        if (said := last_word(error)) is not None:
            Console(stderr=True).print(f"error: {said}", markup=False, highlight=False, soft_wrap=True, style="red")
        raise typer.Exit(1) from None


def _run(options: Options, trackers: list[str]) -> None:
    """Trains and shows the result; exits with 130 when a signal stopped the run."""
    from dataeng.formats.mixture import load_mixture

    # Threads that wait by spinning slow a busy machine down several times over; waiting passively costs almost nothing.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    manifest = load_mixture(options.mixture)
    config = derive_config(options, manifest)
    try:
        from trainer.loop import train as run_training
    except ModuleNotFoundError as error:
        raise ConfigError(f"training needs '{error.name}': pip install 'dataeng[trainer]'.") from error
    from trainer.identity import as_json
    from trainer.watching.progress import LiveWatcher, PlainWatcher
    from trainer.watching.trackers import TrackedWatcher

    console = Console()
    watcher = LiveWatcher(console) if console.is_terminal else PlainWatcher(console)
    report = run_training(config, manifest, TrackedWatcher(watcher, trackers, config.out, as_json(config)))
    let_speak()
    if report.is_first:
        _show(console, report, config)
    if report.step < report.num_steps:
        raise typer.Exit(130)


def _show(console: Console, report: TrainingReport, config: TrainConfig) -> None:
    """Prints the table of domains, and where things are."""
    validated = any(d.held_out_loss is not None for d in report.domains)
    table = Table("domain", box=None, padding=(0, 2), pad_edge=False, collapse_padding=True)
    for column in ("first loss", "last loss", *(["held-out"] if validated else []), "weight", "share", "epochs"):
        table.add_column(column, justify="right")
    for d in report.domains:
        found = (d.first_loss, d.last_loss, *([d.held_out_loss] if validated else []))
        losses = ["-" if loss is None else f"{loss:.3f}" for loss in found]
        table.add_row(Text(d.domain), *losses, f"{d.weight:.3f}", f"{d.share:.3f}", f"{d.epochs:.2f}")
    console.print(table)
    if report.first_step > report.num_steps:
        lines = [f"nothing to do: all {report.num_steps} steps were done before"]
    else:
        ending = "finished" if report.step == report.num_steps else f"stopped; {config.way_on} goes on"
        lines = [f"{ending} at step {report.step} of {report.num_steps} after {report.seconds:.0f} s"]
    if report.best_validation is not None:
        step, loss = report.best_validation
        lines.append(f"smallest held-out loss: {loss:.4f} after step {step}, the mean of the domains")
    lines += [f"run: {config.out}", f"curves: trainer report {config.out}"]
    if report.saved_mixture is not None:
        lines.append(f"learned mixture: {report.saved_mixture}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Console script."""
    app()
