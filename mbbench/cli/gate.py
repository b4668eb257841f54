"""`mbbench keep`, `check`, `compare` and `calibrate`: whether a change made a network worse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mbbench.cli import options, output, stored
from mbbench.cli.interruption import interruption
from mbbench.cli.options import ARTIFACT, NETWORK, TIMING
from mbbench.cli.progress import print_status, stderr_display
from mbbench.cli.quantities import time_within_bounds
from mbbench.compare.changes import DEFAULT_LIMITS
from mbbench.errors import UsageError
from mbbench.spec.bounds import BOUNDS

if TYPE_CHECKING:
    from mbbench.compare.record import GateRecord
    from mbbench.profile import Profile

GateFormat = Literal["table", "json", "markdown", "junit"]
CompareFormat = Literal["table", "json", "markdown"]
_FILE_FORMATS = {".json": "json", ".md": "markdown", ".xml": "junit"}


@options.cell_options("model", *NETWORK, *ARTIFACT, profile="ci", baselines=False)
def keep(
    profile: Profile,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; replaces an earlier baseline in it.")],
) -> None:
    """Save the artifacts of some cells as the baseline of `mbbench check --baseline DIR`."""
    from mbbench import check as program
    from mbbench import plan as planning
    from mbbench import preflight

    output.require_folder(folder)
    spec = planning.plan(profile)
    preflight.require_backends(spec)
    preflight.require_inputs(spec)
    interruption.advise(f"the baseline in {folder} was not changed; run the command again")
    with stderr_display() as display:
        program.keep(spec, folder, display)
    print_status(f"{output.count_text(len(spec.cells), 'artifact')} saved in {folder}")


@options.cell_options("model", *NETWORK, *ARTIFACT, *TIMING, "images", profile="ci", baselines=False)
def check(
    profile: Profile,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", metavar="DIR", help="Baseline folder written by `mbbench keep`.")
    ] = None,
    base_ref: Annotated[
        str | None,
        typer.Option("--base-ref", metavar="REF", help="Commit to build the baseline from, instead of --baseline."),
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-on",
            metavar="METRIC:LIMIT",
            help="Metric to check (p50, p99, rss, added-rss, size or top1) and the largest change allowed, e.g. p50:3%."
            " Can be repeated.",
            show_default=" ".join(DEFAULT_LIMITS),
        ),
    ] = None,
    time: Annotated[
        str,
        typer.Option(
            "--time", metavar="TIME", help="Measuring time per cell; doubled for a cell that exceeds its limits."
        ),
    ] = "5s",
    strict: Annotated[bool, typer.Option("--strict", help="Exit 4 if a verdict is inconclusive.")] = False,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Report file to write: .md, .json or .xml (JUnit). Can be repeated.",
        ),
    ] = None,
    format: Annotated[GateFormat, options.format_option(GateFormat)] = "table",
) -> None:
    """Fail (exit 3) if a network became slower, bigger or less accurate than its baseline.

    Both versions are measured in alternation on one machine, so that changes in its speed cancel out.
    The profile `ci` sets --alpha 0.25 and --res 128; the other defaults are as shown.
    """
    from mbbench import check as program
    from mbbench import plan as planning
    from mbbench import preflight
    from mbbench.compare import changes

    limits = changes.parse_limits(fail_on or DEFAULT_LIMITS)
    seconds = time_within_bounds("time_s", time)
    for file in files or ():
        output.require_suffix(file, tuple(_FILE_FORMATS))
    spec = planning.plan(profile)
    preflight.require_measurable(spec)
    interruption.advise("there is no verdict; run the command again")
    with stderr_display() as display, _baseline_folder(baseline, base_ref, profile) as folder:
        record = program.check(spec, folder, limits, seconds, display)
    for file in files or ():
        _write_file(record, file)
    output.write(_record_text(record, format))
    program.raise_for_outcome(record, strict=strict)


def compare(
    before: Annotated[
        Path, typer.Argument(metavar="A", help="Result file written by `mbbench run` before the change.")
    ],
    after: Annotated[Path, typer.Argument(metavar="B", help="Result file written after the change.")],
    margin: Annotated[
        list[str] | None,
        typer.Option(
            "--margin",
            metavar="METRIC:LIMIT",
            help="Metric to compare (as in `check --fail-on`) and its margin, e.g. p50:3%: a change whose 95 % interval"
            " is within the margin is `same`, even if it is significant. Can be repeated.",
            show_default=" ".join(DEFAULT_LIMITS),
        ),
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare even if machines, runtimes or settings differ.")
    ] = False,
    format: Annotated[CompareFormat, options.format_option(CompareFormat)] = "table",
) -> None:
    """Compare stored results cell by cell: faster, slower, same or inconclusive.

    The machine's speed may differ between two runs: in CI, use `check`, which alternates both versions.
    """
    from mbbench.compare import changes, noise
    from mbbench.compare.stored import compare as compare_stored
    from mbbench.report.sections import verdicts

    comparisons = compare_stored(
        stored.read([before]),
        stored.read([after]),
        changes.parse_limits(margin or DEFAULT_LIMITS),
        lambda result: noise.read(result.machine, result.cell, result.settings.threads, result.settings.batch),
        anyway=anyway,
    )
    if format == "json":
        output.write_record(
            [{"before": cell.before.id, "after": cell.after.id, "metrics": cell.metrics} for cell in comparisons]
        )
        return
    output.write(output.document_text(verdicts.comparison_document(comparisons), format))


@options.cell_options(
    "model", "alpha", "res", "backend", "device", "precision", *TIMING, profile="ci", weights="random", baselines=False
)
def calibrate(
    profile: Profile,
    rounds: Annotated[int, typer.Option("--rounds", help="Number of comparisons of each cell with itself.")] = 20,
    time: Annotated[
        str, typer.Option("--time", metavar="TIME", help="Measuring time per round, as in `mbbench check`.")
    ] = "5s",
    format: options.Format = "table",
) -> None:
    """Measure this machine's noise, and the smallest change that `check` can detect here.

    `check` and `compare` use the result. Weights are random, since speed does not depend on them.
    The profile `ci` sets --alpha 0.25 and --res 128; the other defaults are as shown.
    """
    from mbbench import check as program
    from mbbench import plan as planning
    from mbbench import preflight
    from mbbench.report.document import join
    from mbbench.report.sections import verdicts

    BOUNDS["rounds"].require(rounds)
    seconds = time_within_bounds("time_s", time)
    spec = planning.plan(profile)
    preflight.require_measurable(spec)
    interruption.advise("the noise of finished cells is kept; run the command again for the others")
    with stderr_display() as display:
        floors = list(program.calibrate(spec, rounds, seconds, display))
    tables = [verdicts.noise_table(cell, noise) for cell, noise in floors]
    record = [{"cell": cell, "noise": noise} for cell, noise in floors]
    output.write_tables([join(tables, "Cell")] if format == "csv" else tables, record, format)


@contextmanager
def _baseline_folder(folder: Path | None, ref: str | None, profile: Profile) -> Iterator[Path]:
    """Yield `folder`, or a temporary folder with the baseline built from the commit `ref`.

    Raises `UsageError` unless exactly one of `folder` and `ref` is given, or if the commit cannot be built.
    """
    from mbbench.compare import baseline
    from mbbench.profile import to_options

    if (folder is None) == (ref is None):
        raise UsageError("check needs exactly one baseline", "give either --baseline DIR or --base-ref REF")
    if folder is not None:
        yield folder
        return
    print_status(f"building the baseline from {ref} ...")
    with baseline.build_from_commit(str(ref), to_options(profile)) as built_folder:
        yield built_folder


def _record_text(record: GateRecord, format: str) -> str:
    import msgspec

    from mbbench.report.formats import junit
    from mbbench.report.sections import verdicts

    match format:
        case "json":
            return output.record_text({"outcome": record.outcome, **msgspec.to_builtins(record)})
        case "junit":
            return junit.render_gate(record)
        case _:
            return output.document_text(verdicts.gate_document(record), format)


def _write_file(record: GateRecord, path: Path) -> None:
    """Write the verdicts to `path`; only warn if that fails, so that the verdicts still reach standard output."""
    try:
        output.write_file(path, _record_text(record, _FILE_FORMATS[path.suffix]))
    except UsageError as error:
        print_status(error.cause)
