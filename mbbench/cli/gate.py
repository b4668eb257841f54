"""`mbbench keep`, `check`, `compare` and `calibrate`: whether a change made a network worse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mbbench.cli import options, output
from mbbench.cli.options import ARTIFACT, NETWORK, TIMING
from mbbench.cli.progress import display, tell
from mbbench.errors import UsageError
from mbbench.spec import seconds_of

if TYPE_CHECKING:
    from mbbench.compare.record import Checked
    from mbbench.profile import Profile

GateFormat = Literal["table", "json", "markdown", "junit"]
CompareFormat = Literal["table", "json", "markdown"]
_LIMITS = "p50:3% p99:10% rss:5% size:1% top1:-0.5pt"
_FILE_FORMATS = {".json": "json", ".md": "markdown", ".xml": "junit"}
_MIN_ROUNDS = 5
_MIN_S, _MAX_S = 1, 3600


@options.about_cells("model", *NETWORK, *ARTIFACT, baselines=False)
def keep(
    profile: Profile,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; its earlier baseline is replaced.")],
) -> None:
    """Keep the artifacts of some cells as the baseline of `mbbench check --baseline DIR`."""
    from mbbench import check as program
    from mbbench import plan as planning

    spec = planning.plan(profile)
    with display() as show:
        program.keep(spec, folder, show)
    count = len(spec.cells)
    tell(f"{count} artifact{'s' * (count > 1)} kept in {folder}")


@options.about_cells("model", *NETWORK, *ARTIFACT, *TIMING, "images", profile="ci", baselines=False)
def check(
    profile: Profile,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", metavar="DIR", help="Folder that `mbbench keep` wrote.")
    ] = None,
    base_ref: Annotated[
        str | None, typer.Option("--base-ref", metavar="REF", help="Or the commit to build the baseline from.")
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-on",
            metavar="METRIC:LIMIT",
            help="Limit of p50, p99, rss, size or top1. Can be repeated.",
            show_default=_LIMITS,
        ),
    ] = None,
    time: Annotated[
        str, typer.Option("--time", metavar="TIME", help="Time to measure a cell; a cell that fails gets it twice.")
    ] = "5s",
    strict: Annotated[bool, typer.Option("--strict", help="Exit 4 if a verdict is inconclusive.")] = False,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Also write a .md, .json or .xml (JUnit) file. Can be repeated."
        ),
    ] = None,
    format: Annotated[GateFormat, options.FORMAT] = "table",
) -> None:
    """Fail (exit 3) if a change made a network slower, bigger or less accurate than a baseline.

    Both are measured in alternation, in one run on one machine, so that changes in the machine's speed cancel out.
    """
    from mbbench import check as program
    from mbbench import plan as planning
    from mbbench.compare import changes

    limits = changes.limits(fail_on or changes.DEFAULTS)
    seconds = _seconds(time)
    for file in files or ():
        output.require_suffix(file, tuple(_FILE_FORMATS))
    spec = planning.plan(profile)
    with display() as show, _baseline(baseline, base_ref, profile) as folder:
        checked = program.check(spec, folder, limits, seconds, show)
    for file in files or ():
        _write_file(checked, file)
    output.write(_checked_text(checked, format))
    program.verdict(checked, strict=strict)


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Results before the change, written by `mbbench run`.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Results after the change.")],
    margin: Annotated[
        list[str] | None,
        typer.Option(
            "--margin",
            metavar="METRIC:LIMIT",
            help="Largest difference that counts as the same. Can be repeated.",
            show_default=_LIMITS,
        ),
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare even if machines, runtimes or settings differ.")
    ] = False,
    format: Annotated[CompareFormat, options.FORMAT] = "table",
) -> None:
    """Compare stored results, cell by cell: faster, slower, same or inconclusive.

    The machine's speed may change between two runs: for a gate use `mbbench check`, which alternates.
    """
    from mbbench import store
    from mbbench.compare import changes, noise, stored
    from mbbench.report.sections import verdicts

    comparisons = stored.compare(
        store.read(first),
        store.read(second),
        changes.limits(margin or changes.DEFAULTS),
        lambda result: noise.load(result.machine, result.cell, result.settings.threads, result.settings.batch),
        anyway=anyway,
    )
    if format == "json":
        output.write_record(
            [{"before": cell.before.id, "after": cell.after.id, "metrics": cell.metrics} for cell in comparisons]
        )
        return
    output.write(output.document_text(verdicts.comparisons(comparisons), format))


@options.about_cells(
    "model", "alpha", "res", "backend", "device", "precision", *TIMING, profile="ci", weights="random", baselines=False
)
def calibrate(
    profile: Profile,
    rounds: Annotated[int, typer.Option("--rounds", help="Comparisons of each cell with itself.")] = 20,
    time: Annotated[
        str, typer.Option("--time", metavar="TIME", help="Time to measure a round, as in `mbbench check`.")
    ] = "5s",
    format: options.Format = "table",
) -> None:
    """Measure this machine's noise floor, and the smallest change that `mbbench check` can show here.

    `check` and `compare` use the result. Weights are random: speed does not depend on them.
    """
    from mbbench import check as program
    from mbbench import plan as planning
    from mbbench.report.sections import verdicts

    if rounds < _MIN_ROUNDS:
        raise UsageError(f"--rounds is too small to show a spread: {rounds}", f"give at least {_MIN_ROUNDS}, better 20")
    seconds = _seconds(time)
    with display() as show:
        floors = list(program.calibrate(planning.plan(profile), rounds, seconds, show))
    tables = [verdicts.calibrated(cell, noise) for cell, noise in floors]
    output.write_tables(tables, [{"cell": cell, "noise": noise} for cell, noise in floors], format)


@contextmanager
def _baseline(folder: Path | None, ref: str | None, profile: Profile) -> Iterator[Path]:
    """Yield the folder with the baseline, built from the commit `ref` if there is one. Raises `UsageError`."""
    from mbbench.compare import baseline
    from mbbench.profile import options

    if (folder is None) == (ref is None):
        raise UsageError("check compares with exactly one baseline", "give --baseline DIR or --base-ref REF")
    if folder is not None:
        yield folder
        return
    tell(f"building the baseline from {ref} ...")
    with baseline.built_from(str(ref), options(profile)) as built:
        yield built


def _seconds(time: str) -> float:
    """Return --time in seconds. Raises `UsageError`."""
    seconds = seconds_of(time)
    if not _MIN_S <= seconds <= _MAX_S:
        raise UsageError(f"--time is out of range: {time}", "give 1s to 1h")
    return seconds


def _checked_text(checked: Checked, format: str) -> str:
    import msgspec

    from mbbench.report.formats import junit
    from mbbench.report.sections import verdicts

    match format:
        case "json":
            return output.record_text({"outcome": checked.outcome, **msgspec.to_builtins(checked)})
        case "junit":
            return junit.render(checked)
        case _:
            return output.document_text(verdicts.document(checked), format)


def _write_file(checked: Checked, path: Path) -> None:
    """Write the verdicts to `path`; a file that cannot be written must not hide the verdict."""
    try:
        output.write_file(path, _checked_text(checked, _FILE_FORMATS[path.suffix]))
    except UsageError as error:
        tell(error.cause)
