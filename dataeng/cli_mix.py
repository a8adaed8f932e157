"""The commands of mixtures, `dataeng mix …`: a part of the command line, as thin as the rest of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dataeng.formats.mixture import MixtureManifest
    from dataeng.report.mixture_preview import PreviewRow

DEFAULT_COMMAND = "build"
HELP_OPTIONS = ("-h", "--help")


class _BuildsByDefault(TyperGroup):
    """`dataeng mix RUN …` is `dataeng mix build RUN …`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if not args or (args[0] not in self.commands and args[0] not in HELP_OPTIONS):
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)


mix_app = typer.Typer(
    cls=_BuildsByDefault,
    help="Build a mixture manifest from packs (`dataeng mix RUN…`), look at it, hand it over, fit its "
    "weights to proxy runs, or replay a training run's controller. A run folder that is called like a command is "
    "written ./NAME.",
    context_settings={"help_option_names": list(HELP_OPTIONS)},
)

Output = Annotated[Path, typer.Option("--output", "-o", help="The manifest to write.")]
Tokens = Annotated[str | None, typer.Option(help="Token budget, e.g. 500k or 2B. Without: the tokens there are.")]
Format = Annotated[str, typer.Option("--format", help="table, csv or json (one object a line).")]
MaxEpochs = Annotated[
    list[str] | None,
    typer.Option(help="Never repeat a domain (or any) more often than this.", metavar="[DOMAIN=]N"),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite a manifest that holds learned weights.")]
Folders = Annotated[list[Path], typer.Argument(help="Run folders (all their packs) or pack folders.", metavar="RUN…")]
Manifest = Annotated[Path, typer.Argument(help="A mixture manifest, e.g. manifests/mix.json.", metavar="MANIFEST")]


@mix_app.command(DEFAULT_COMMAND)
def mix_build(
    folders: Folders,
    output: Output = Path("manifests/mix.json"),
    temperature: Annotated[
        float | None, typer.Option(help="Weights ∝ tokens^(1/T): 1 is natural, larger is flatter, inf is uniform.")
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="The same as an exponent: weights ∝ tokens^A.")] = None,
    unimax: Annotated[
        float | None, typer.Option(help="UniMax: uniform, but no domain beyond N epochs of --tokens.", metavar="N")
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option("--weight", help="Give weights instead, domain by domain.", metavar="DOMAIN=W"),
    ] = None,
    weights_file: Annotated[
        Path | None, typer.Option("--weights", help="Give weights in a file: CSV, JSON or YAML.", metavar="FILE")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A published table: gpt3 or llama (`dataeng mix recipes` shows them).")
    ] = None,
    mapping: Annotated[
        list[str] | None, typer.Option("--map", help="Which part of the recipe a domain is.", metavar="DOMAIN=PART")
    ] = None,
    schedule: Annotated[
        Path | None, typer.Option(help="Stages over training progress, in YAML or JSON.", metavar="FILE")
    ] = None,
    max_epochs: MaxEpochs = None,
    orders: Annotated[
        list[str] | None,
        typer.Option("--order", help="Read a domain in the order of a column.", metavar="DOMAIN=COLUMN[:desc]"),
    ] = None,
    fixed: Annotated[
        list[str] | None, typer.Option(help="Losses never move this domain's weight.", metavar="DOMAIN")
    ] = None,
    packing: Annotated[
        str, typer.Option(help="How documents become rows: concatenate, best-fit or aligned.")
    ] = "concatenate",
    tokens: Tokens = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Of runs, the packs that models are measured on, for `--validate`.")
    ] = False,
    pin: Annotated[bool, typer.Option(help="Name the packs' SHA-256, so that no others fit.")] = True,
    force: Force = False,
    output_format: Format = "table",
) -> None:
    """Build a mixture manifest from packs, and print weights, tokens and epochs per domain, language and stage."""
    from dataeng.formats.mixture import save_mixture
    from dataeng.formats.token_count import parse_tokens
    from dataeng.mixture.build import build_mixture, load_pack_tokens
    from dataeng.report import mixture_files, mixture_options
    from dataeng.report.mixture_preview import preview
    from dataeng.report.plain import check_format

    check_format(output_format)
    mixture_options.refuse_to_lose_history(output, force)
    packs, run_dir = mixture_options.pack_folders(folders, held_out)
    num_tokens = load_pack_tokens(packs)
    budget = parse_tokens(tokens) if tokens else None
    choice = mixture_options.choose(
        num_tokens,
        budget,
        temperature=temperature,
        alpha=alpha,
        unimax=unimax,
        weights=mixture_options.parse_weights(weights) if weights else None,
        weights_file=(weights_file, mixture_files.read_weights(weights_file)) if weights_file else None,
        recipe=recipe,
        mapping=mixture_options.parse_mapping(mapping or []),
        schedule=(schedule, mixture_files.read_schedule(schedule)) if schedule else None,
    )
    manifest = build_mixture(
        packs,
        output,
        policy=choice.policy,
        weights=choice.weights,
        schedule=choice.schedule,
        max_epochs=mixture_options.parse_epoch_caps(max_epochs or [], list(num_tokens)),
        orders=mixture_options.parse_orders(orders or []),
        fixed=fixed or [],
        packing=mixture_options.parse_packing(packing),
        run=run_dir,
        pinned=pin,
    )
    budget = sum(num_tokens.values()) if budget is None else budget
    rows = preview(manifest, output, budget)  # refuses caps that do not allow the budget
    save_mixture(output, manifest)
    _show(manifest, rows, budget, output_format)
    if output_format == "table":
        sys.stdout.write(f"\nWrote {output}.\n")


@mix_app.command("show")
def mix_show(path: Manifest, tokens: Tokens = None, output_format: Format = "table") -> None:
    """Print what a budget of tokens will contain under a manifest, by domain, language and stage."""
    from dataeng.formats.mixture import load_mixture
    from dataeng.formats.token_count import parse_tokens
    from dataeng.report.mixture import packs_are_here
    from dataeng.report.mixture_preview import preview
    from dataeng.report.plain import check_format

    check_format(output_format)
    manifest = load_mixture(path)
    budget = parse_tokens(tokens) if tokens else sum(domain.num_tokens for domain in manifest.domains.values())
    far_away = output_format == "table" and not packs_are_here(manifest, path)
    _show(manifest, [] if far_away else preview(manifest, path, budget), budget, output_format)
    if far_away:
        sys.stdout.write("\nthe packs are not where the manifest says, so languages are not known.\n")


def _show(manifest: MixtureManifest, rows: Sequence[PreviewRow], budget: int, output_format: str) -> None:
    from dataeng.report.mixture import preview_columns, print_mixture, print_preview
    from dataeng.report.plain import write_plain
    from dataeng.report.terminal import console

    if output_format != "table":
        write_plain(sys.stdout, *preview_columns(rows), output_format)
        return
    out = console()
    print_mixture(out, manifest, budget)
    if rows:
        print_preview(out, rows, budget)


@mix_app.command("fit")
def mix_fit(
    file: Annotated[
        Path, typer.Argument(help="Proxy runs, CSV or Parquet: weight.DOMAIN and loss.TARGET.", metavar="FILE")
    ],
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Run or pack folders; without, no manifest is written.", metavar="RUN…")
    ] = None,
    output: Output = Path("manifests/fitted.json"),
    method: Annotated[
        str, typer.Option(help="olmix: an exponential law; regmix: gradient-boosted trees (LightGBM).")
    ] = "olmix",
    targets: Annotated[
        list[str] | None,
        typer.Option("--target", help="A loss to lower, with its importance. Without: all alike.", metavar="LOSS[=N]"),
    ] = None,
    prior: Annotated[
        list[str] | None,
        typer.Option(help="Stay near these weights. Without: the packs' tokens, or the runs' mean.", metavar="D=W"),
    ] = None,
    kl: Annotated[
        float | None, typer.Option(help="How near: λ of λ·KL(weights ‖ prior). Without: 0.05 of olmix, 0 of regmix.")
    ] = None,
    max_epochs: MaxEpochs = None,
    tokens: Tokens = None,
    simulations: Annotated[int, typer.Option(help="regmix: mixtures to draw.", min=1)] = 100_000,
    best: Annotated[int, typer.Option(help="regmix: the best of them, whose mean is taken.", min=1)] = 128,
    seed: Annotated[int, typer.Option(help="Of folds and simulations.")] = 42,
    pin: Annotated[bool, typer.Option(help="Name the packs' SHA-256, so that no others fit.")] = True,
    force: Force = False,
    output_format: Format = "table",
) -> None:
    """Fit weights to the losses of proxy runs on other mixtures (Olmix, RegMix), and write a manifest with them."""
    from dataeng.errors import ConfigError
    from dataeng.formats.mixture import save_mixture
    from dataeng.formats.token_count import parse_tokens
    from dataeng.mixture.build import build_mixture, load_pack_tokens
    from dataeng.mixture.fit.fit import FitOptions, fit_mixture
    from dataeng.mixture.fit.runs import read_runs
    from dataeng.report import mixture_fit, mixture_options
    from dataeng.report.plain import check_format, write_plain
    from dataeng.report.terminal import console

    check_format(output_format)
    options = FitOptions(
        mixture_fit.parse_method(method), kl, mixture_fit.parse_targets(targets or []), simulations, best, seed
    )
    runs = read_runs(file)
    near = mixture_options.parse_weights(prior, "--prior") if prior else None
    caps, limits, budget, num_tokens = {}, {}, None, {}
    if folders:
        mixture_options.refuse_to_lose_history(output, force)
        packs, run_dir = mixture_options.pack_folders(folders)
        num_tokens = load_pack_tokens(packs)
        mixture_fit.check_domains(runs, num_tokens, file)
        budget = parse_tokens(tokens) if tokens else sum(num_tokens.values())
        caps = mixture_options.parse_epoch_caps(max_epochs or [], list(num_tokens))
        limits = mixture_fit.limits(caps, num_tokens, budget)
        near = near or {name: count / sum(num_tokens.values()) for name, count in num_tokens.items()}
    elif max_epochs or tokens:
        raise ConfigError("--max-epochs and --tokens are about packs: give the RUN… folders.")
    fitted = fit_mixture(runs, options, near, limits)
    if folders:
        manifest = build_mixture(
            packs,
            output,
            policy=mixture_fit.policy(fitted, file, budget),
            weights=mixture_fit.manifest_weights(fitted),
            max_epochs=caps,
            run=run_dir,
            pinned=pin,
        )
        save_mixture(output, manifest)
    if output_format != "table":
        write_plain(sys.stdout, mixture_fit.COLUMNS, mixture_fit.rows(fitted), output_format)
        return
    mixture_fit.print_fit(console(), fitted)
    if folders:
        sys.stdout.write(f"\nWrote {output}.\n")


@mix_app.command("handover")
def mix_handover(
    path: Manifest,
    to: Annotated[str, typer.Option(help="megatron, nanotron, torchtitan or llm-foundry.", metavar="TRAINER")],
    tokens: Tokens = None,
    sequence_length: Annotated[int, typer.Option(help="Tokens of a row.", min=1)] = 2048,
    batch_size: Annotated[int, typer.Option(help="Rows of a step, over all devices.", min=1)] = 512,
    root: Annotated[
        Path | None,
        typer.Option(help="Where `dataeng export` wrote the trainer's format; megatron and torchtitan read packs."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it here, not to the terminal.")] = None,
) -> None:
    """Print a mixture as the configuration of another trainer, stages included."""
    from dataeng.formats.mixture import load_mixture
    from dataeng.formats.token_count import parse_tokens
    from dataeng.mixture.handover.hand_over import hand_over

    manifest = load_mixture(path)
    budget = parse_tokens(tokens) if tokens else sum(domain.num_tokens for domain in manifest.domains.values())
    text = hand_over(manifest, path, to, budget, sequence_length, batch_size, root)
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text)


@mix_app.command("replay")
def mix_replay(
    run: Annotated[Path, typer.Argument(help="A training run's folder, finished or not.", metavar="RUN")],
    method: Annotated[str | None, typer.Option(help="Another method, e.g. sow-linupper.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another constant, e.g. r=2, ema=0.9, reference.web=2.1.", metavar="NAME=VALUE"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write every step's weights here, as .parquet or .csv.", metavar="FILE")
    ] = None,
    output_format: Format = "table",
) -> None:
    """Run a training run's mixture controller again on its recorded losses, as it was or with other constants.

    As it was, the recorded weights come out bit for bit, and this says whether they do.

    With other constants, the losses are still the run's: under other weights the model would have had other ones.
    """
    from dataeng.mixture import replay
    from dataeng.report import mixture_replay
    from dataeng.report.plain import check_format, write_plain
    from dataeng.report.terminal import console

    check_format(output_format)
    if out is not None:
        mixture_replay.check_target(out)
    recorded = replay.read_recorded(run)
    own = replay.replay(recorded, recorded.reweighting)
    reweighting = replay.changed_constants(recorded.reweighting, method, settings or [], recorded.names)
    weights = own if reweighting == recorded.reweighting else replay.replay(recorded, reweighting)
    if out is not None:
        mixture_replay.write_weights(out, replay.weights_table(recorded, weights))
    if output_format != "table":
        write_plain(sys.stdout, mixture_replay.COLUMNS, mixture_replay.rows(recorded, weights), output_format)
        return
    mixture_replay.print_replay(console(), recorded, weights, replay.departure(recorded, own), reweighting)
    if out is not None:
        sys.stdout.write(f"\nWrote {out}.\n")


@mix_app.command("recipes")
def mix_recipes() -> None:
    """Print the published tables that --recipe knows, with their sources."""
    from dataeng.report.mixture import print_recipes
    from dataeng.report.terminal import console

    print_recipes(console())


@mix_app.command("schema")
def mix_schema() -> None:
    """Print the JSON Schema of mixture manifests."""
    from dataeng.formats.mixture import json_schema

    sys.stdout.write(json_schema())
