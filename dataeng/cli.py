"""The command line. Thin: it parses, calls, prints and exits; nothing else in the package does any of these."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from dataeng.cli_export import export
from dataeng.cli_index import index_app
from dataeng.cli_mix import mix_app
from dataeng.cli_packs import packs_app, remove, trace
from dataeng.cli_rows import packing
from dataeng.cli_tokenizer import train_tokenizer
from dataeng.errors import DataengError
from dataeng.interruption import interrupts_kept


class _Commands(TyperGroup):
    """Ctrl-C ends a command with a sentence; typer itself would say "Aborted!" or nothing."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        try:
            with interrupts_kept():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.stderr.write("stopped. What was finished is kept: run the same command again to go on.\n")
            sys.exit(130)


app = typer.Typer(
    name="dataeng",
    cls=_Commands,
    help="Pretraining corpora, from crawl to packs to mixtures, with nothing lost on the way.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PipelineFile = Annotated[Path, typer.Argument(help="The pipeline file (YAML).", metavar="FILE")]
Run = Annotated[Path, typer.Argument(help="A run folder, e.g. runs/cc_clean.", metavar="RUN")]
Override = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override an option: STEP.OPTION=VALUE, or KEY=VALUE.", metavar="A.B=C"),
]
AllowCode = Annotated[bool, typer.Option("--allow-code", help="Import and run stages named by dotted path.")]
Verify = Annotated[bool, typer.Option("--verify", help="Hash every committed file, whatever its size and time say.")]


@app.command()
def run(
    file: PipelineFile,
    overrides: Override = None,
    workers: Annotated[int, typer.Option(help="Worker processes.", min=1)] = max(1, os.cpu_count() or 1),
    scheduler: Annotated[
        str, typer.Option(help="inline, processes, dask (a local cluster), or a Dask scheduler's address.")
    ] = "processes",
    allow_code: AllowCode = False,
    verify: Verify = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the run of another pipeline.")] = False,
) -> None:
    """Run a pipeline: only what is missing, changed or damaged."""
    from dataeng.config import load_pipeline
    from dataeng.engine.executor import Pool, check_scheduler
    from dataeng.engine.runner import run_plan
    from dataeng.plan import make_plan
    from dataeng.report.alarms import read_alarms
    from dataeng.report.finish import has_reports, write_reports
    from dataeng.report.funnel import funnel
    from dataeng.report.terminal import LiveProgress, console, funnel_table, pack_lines
    from dataeng.report.terminal_clusters import alarm_lines
    from dataeng.report.unused_options import unused_options

    check_scheduler(scheduler)
    out = console()
    pipeline = load_pipeline(file, overrides, allow_code)
    plan = make_plan(pipeline)
    run_dir = pipeline.run_dir
    pool = Pool(scheduler, 1 if scheduler == "inline" else workers, pipeline.kernels)
    try:
        with LiveProgress(out) as progress:

            def prepare() -> None:
                from dataeng import kernels

                # Workers load the machine code themselves: this process needs it only to work in itself or to compile.
                if scheduler != "inline" and not kernels.needs_compiling(pipeline.kernels):
                    return
                kernels.prepare(
                    pipeline.kernels,
                    on_compile=lambda names: progress.message(
                        f"compiling {len(names)} kernels for this machine (once, about a minute)"
                    ),
                )

            folders = (str(pipeline.base),) if allow_code else ()
            result = run_plan(
                plan,
                run_dir,
                pool,
                progress,
                prepare,
                verify,
                folders,
                lambda records: write_reports(pipeline, run_dir, records),
                replace,
            )
    finally:
        pool.close()
    if result.nothing_to_do:
        if not has_reports(run_dir):
            write_reports(pipeline, run_dir, result.records)
        out.print(f"nothing to do: {run_dir} is complete ({result.tasks_reused} tasks reused).", highlight=False)
        return
    out.print(funnel_table(funnel(result.records)))
    for line in pack_lines(result.records):
        out.print(line, highlight=False)
    for alarm in alarm_lines(read_alarms(run_dir)):
        out.print(alarm, soft_wrap=True)
    for unused in unused_options(pipeline, result.records):
        out.print(unused, style="yellow", markup=False, highlight=False, soft_wrap=True)
    out.print(
        f"\n{result.tasks_run} tasks run, {result.tasks_reused} reused, {result.seconds:.1f} s. "
        f'Next: dataeng sql {run_dir} "SELECT stage, reason, sum(documents) AS documents FROM drops GROUP BY ALL"',
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def plan(file: PipelineFile, overrides: Override = None, allow_code: AllowCode = False, verify: Verify = False) -> None:
    """Show phases, tasks, fingerprints, what would be reused, and why the rest would run. Runs nothing."""
    from dataeng.config import load_pipeline
    from dataeng.engine.reuse import inspect_plan
    from dataeng.plan import make_plan
    from dataeng.report.terminal import console, plan_lines, size

    pipeline = load_pipeline(file, overrides, allow_code)
    made = make_plan(pipeline)
    states = inspect_plan(made, pipeline.run_dir, verify)
    out = console()
    files = [task.file for task in made.tasks[made.phases[0].name] if task.file is not None]
    total = sum(item.size_bytes for item in files)
    out.print(f"{pipeline.name}: {len(files)} input files, {size(total)} → {pipeline.run_dir}", highlight=False)
    if pipeline.uses_own_code:
        out.print(f"code from outside dataeng: {', '.join(pipeline.uses_own_code)}", highlight=False, markup=False)
    for line in plan_lines(states):
        out.print(line, highlight=False, soft_wrap=True)
    todo = sum(len(state.todo) for state in states)
    reused = sum(len(state.done) for state in states)
    out.print(f"\n{todo} tasks would run, {reused} would be reused.", highlight=False)


@app.command()
def sql(
    run_dir: Run,
    statement: Annotated[str | None, typer.Argument(help="A SELECT; without one, the tables are listed.")] = None,
    output: Annotated[str, typer.Option("--format", help="table, csv or json (one object a line).")] = "table",
) -> None:
    """Query a run with DuckDB: documents, rejects, signals, stages, drops, dedup, packs, training."""
    from dataeng.report.plain import check_format, write_plain
    from dataeng.report.sql import TABLES, query
    from dataeng.report.terminal import ROWS_SHOWN, console, print_rows, print_tables

    check_format(output)
    columns, rows = query(run_dir, statement or TABLES, ROWS_SHOWN + 1 if output == "table" else None)
    if output == "table" and statement is None:
        print_tables(console(), {str(name): str(found) for name, found in rows}, run_dir)
    elif output == "table":
        print_rows(console(), columns, rows)
    else:
        write_plain(sys.stdout, columns, rows, output)


@app.command()
def explain(
    run_dir: Run, document: Annotated[str, typer.Argument(help="A document's id, the beginning of it, or its URL.")]
) -> None:
    """Tell one document's story: where it came from, what was measured, and why it was dropped or where it went."""
    from dataeng.report.explain import explain as find
    from dataeng.report.terminal import console, print_story

    print_story(console(), find(run_dir, document))


@app.command()
def clusters(
    run_dir: Run,
    number: Annotated[int, typer.Option("--number", "-n", help="Clusters to show.", min=1)] = 5,
    members: Annotated[int, typer.Option(help="Removed documents to list of each.", min=1)] = 5,
    stage: Annotated[str | None, typer.Option(help="Only those of this deduplication step.")] = None,
    kept: Annotated[
        str | None, typer.Option(help="Only the cluster whose kept id begins like this.", metavar="ID")
    ] = None,
) -> None:
    """List a run's largest clusters of duplicates, each with its survivor beside the document least like it."""
    from dataeng.report.clusters import largest_clusters
    from dataeng.report.terminal import console
    from dataeng.report.terminal_clusters import print_clusters

    print_clusters(console(), largest_clusters(run_dir, number, members, stage, kept))


@app.command()
def tune(
    run_dir: Run,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another value for a rule's parameter; null switches it off.", metavar="FAMILY.P=N"),
    ] = None,
    presets: Annotated[
        list[str] | None, typer.Option("--preset", help="Presets (or YAML files) in place of the step's own.")
    ] = None,
    step: Annotated[str | None, typer.Option(help="The rules step, where the run has several that fit.")] = None,
    examples: Annotated[int, typer.Option(help="Documents to show of each kind.", min=0)] = 3,
    output: Annotated[str, typer.Option("--format", help="table, csv or json (one object a line).")] = "table",
) -> None:
    """Tell what other thresholds or presets would do to a run, from its stored signals. Runs nothing."""
    from dataeng.errors import ConfigError
    from dataeng.report.plain import check_format, write_plain
    from dataeng.report.terminal import console
    from dataeng.report.terminal_rules import print_tuned
    from dataeng.report.tune import parse_values
    from dataeng.report.tune import tune as decide_again

    check_format(output)
    if not values and not presets:
        raise ConfigError("nothing to change: give --set FAMILY.PARAMETER=NUMBER or --preset NAME (or both)")
    tuned = decide_again(run_dir, parse_values(values or []), presets or (), step, examples)
    if output == "table":
        print_tuned(console(), tuned)
    else:
        write_plain(sys.stdout, tuned.flips.columns, tuned.flips.rows(), output)


@app.command("diff-presets")
def diff_presets(
    run_dir: Run,
    first: Annotated[str, typer.Argument(help="A preset, or a YAML file.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    where: Annotated[
        str | None, typer.Option(help="Only these documents, e.g. \"language == 'en'\".", metavar="PREDICATE")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Documents to list; csv and json list all.", min=0)] = None,
    output: Annotated[str, typer.Option("--format", help="table, csv or json (one object a line).")] = "table",
) -> None:
    """Name the documents of a run on which two presets disagree, and the rules. Runs nothing."""
    from dataeng.report.diff_presets import diff_presets as compare
    from dataeng.report.plain import check_format, write_plain
    from dataeng.report.terminal import console
    from dataeng.report.terminal_rules import DOCUMENTS_SHOWN, print_difference

    check_format(output)
    difference = compare(run_dir, first, second, where)
    if output == "table":
        print_difference(console(), difference, DOCUMENTS_SHOWN if limit is None else limit)
    else:
        listed = difference.disagreements if limit is None else difference.disagreements.head(limit)
        write_plain(sys.stdout, listed.columns, listed.rows(), output)


@app.command()
def presets(
    name: Annotated[str | None, typer.Argument(help="A preset or a YAML file, to see its rules.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the reference of signals and presets.")] = False,
) -> None:
    """List the rule presets with their sources, or the rules of one."""
    from dataeng.report import preset_reference, terminal_rules
    from dataeng.report.terminal import console

    if markdown:
        sys.stdout.write(preset_reference.markdown())
    elif name is None:
        terminal_rules.print_presets(console())
    else:
        terminal_rules.print_preset(console(), name)


@app.command()
def stages(
    name: Annotated[str | None, typer.Argument(help="A stage, to see its options.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the reference of all stages.")] = False,
) -> None:
    """List the stages that a pipeline can use, or the options of one."""
    from dataeng.report import catalogue
    from dataeng.report.terminal import console

    if markdown:
        sys.stdout.write(catalogue.markdown())
    elif name is None:
        catalogue.print_stages(console())
    else:
        catalogue.print_stage(console(), name)


# Commands that live in modules of their own, in the order of the work: `--help` lists them after those above.
app.command("train-tokenizer")(train_tokenizer)
app.add_typer(packs_app, name="packs")
app.command()(trace)
app.command()(remove)
app.command()(packing)
app.command()(export)
app.add_typer(mix_app, name="mix")
app.add_typer(index_app, name="index")


def main() -> None:
    """Entry point: errors that a user can do something about are shown without a traceback."""
    try:
        app(prog_name="dataeng", standalone_mode=True)
    except (DataengError, OSError) as error:
        from dataeng.report.visible import visible

        message = str(error)
        if isinstance(error, OSError) and error.filename:
            message = f"{error.filename}: {error.strerror}."
        sys.stderr.write(f"error: {visible(message)}\n")
        sys.exit(1)
