"""What the commands do once their options are parsed: call the stages, write the answer to stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console

from mbbench import paper, registry
from mbbench import plan as planning
from mbbench.errors import BackendError, ParityError, UsageError
from mbbench.profile import Profile
from mbbench.profile import options as profile_options
from mbbench.progress import Display, tell
from mbbench.report import units
from mbbench.report.content import Document, Table
from mbbench.result import Result
from mbbench.spec import ModelSpec

if TYPE_CHECKING:
    from mbbench.checking import Checked
    from mbbench.choosing import Limits
    from mbbench.events import Notify

_EXPORTS = {".json": "json", ".md": "markdown", ".xml": "junit"}


def run(profile: Profile, results: Path, output: str, *, plan_only: bool, artifact: Path | None, trust: bool) -> None:
    given = None
    if trust and artifact is None:
        raise UsageError("--trust is trust in a file", "name it with --artifact")
    if artifact is not None:
        from mbbench import exporting

        given = exporting.read(artifact, trust=trust)
        profile = exporting.asked_for(profile, given.sidecar)
    spec = planning.plan(profile)
    if plan_only:
        _write_tables([planning.describe(spec)], spec, output)
        return
    from mbbench.run import run as measure

    _run(lambda notify: measure(spec, results, notify, given=given), results, output)


def _run(measure: Callable[[Notify], Iterator[Result]], results: Path, output: str) -> None:
    """Write what `measure` yields, however it ends, and raise what the failures amount to."""
    from mbbench.run import verdict

    done = []
    try:
        with Display(Console(stderr=True)) as display:
            for result in measure(display):
                done.append(result)
    finally:
        if done:
            _write(_render(done, output))
            tell(f"{len(done)} result{'s' * (len(done) > 1)} in {results}")
    verdict(done)


def sweep(profile: Profile, results: Path, output: str, *, plan_only: bool, resume: bool, cluster: str | None) -> None:
    from mbbench import sweeping
    from mbbench.profile import load

    if resume and profile != load("default"):
        raise UsageError("--resume asks for what was asked for", "give it --results alone")
    spec = sweeping.resumed(results) if resume else planning.grouped(planning.plan(profile))
    if plan_only:
        _write_tables([planning.describe(spec)], spec, output)
        return
    _run(lambda notify: sweeping.sweep(spec, results, notify, cluster), results, output)


def export(profile: Profile, target: Path, compute_capability: str | None) -> None:
    from mbbench import exporting

    with Display(Console(stderr=True)) as display:
        made = exporting.export(planning.plan(profile), target, compute_capability, display)
    tell(f"{target} written: {made.cell.label}, {made.artifact.format}, {units.megabytes(made.artifact.size_bytes)}")


def keep(profile: Profile, folder: Path) -> None:
    from mbbench import checking

    spec = planning.plan(profile)
    with Display(Console(stderr=True)) as display:
        checking.keep(spec, folder, display)
    count = len(spec.cells)
    tell(f"{count} artifact{'s' * (count > 1)} kept in {folder}")


def check(
    profile: Profile,
    *,
    folder: Path | None,
    base_ref: str | None,
    limits: Sequence[str],
    seconds: float,
    strict: bool,
    output: str,
    exports: Sequence[Path],
) -> None:
    """Measure baseline and candidate, write the verdicts, and raise what they amount to."""
    from mbbench import baseline, changes, checking

    wanted = changes.limits(limits)
    if (folder is None) == (base_ref is None):
        raise UsageError("a gate compares with one baseline", "give --baseline DIR or --base-ref REF")
    _require_seconds(seconds)
    for path in exports:
        if path.suffix not in _EXPORTS:
            raise UsageError(f"--export {path} has no format", f"end it with one of {', '.join(_EXPORTS)}")
    spec = planning.plan(profile)
    if base_ref is not None:
        tell(f"building the baseline from {base_ref} ...")
    source = nullcontext(folder) if folder is not None else baseline.built_from(str(base_ref), profile_options(profile))
    with Display(Console(stderr=True)) as display, source as kept:
        assert kept is not None
        checked = checking.check(spec, kept, wanted, seconds, display)
    for path in exports:
        _export(checked, path)
    _write(_checked(checked, output))
    checking.verdict(checked, strict=strict)


def compare(first: Path, second: Path, margins: Sequence[str], output: str, *, anyway: bool) -> None:
    from mbbench import changes, noise, store
    from mbbench import compare as comparing
    from mbbench.report import verdicts

    found = comparing.compare(
        store.read(first),
        store.read(second),
        changes.limits(margins),
        lambda result: noise.load(result.machine, result.cell, result.settings.threads, result.settings.batch),
        anyway=anyway,
    )
    if output == "json":
        rows = [{"before": cell.before.id, "after": cell.after.id, "metrics": cell.metrics} for cell in found]
        _write(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode() + "\n")
        return
    _write(_document(verdicts.comparisons(found), output))


def choose(paths: Sequence[Path], limits: Limits, output: str, *, published: bool) -> None:
    """Raises `ParityError` if nothing keeps within the limits, once that is written."""
    from mbbench import choosing, store
    from mbbench.report import choice, selection

    found = choosing.choose(
        selection.newest(result for path in paths for result in store.read(path, samples=False)),
        limits,
        published=published,
    )
    document = choice.document(found, published=published)
    if output in ("json", "csv"):
        _write_tables(list(document.tables), choice.record(found), output)
    else:
        _write(_document(choice.shortened(document), output))
    if found.pick is None:
        raise ParityError("no cell keeps within the limits", "loosen one, or measure more cells with `mbbench sweep`")


def calibrate(profile: Profile, rounds: int, seconds: float, output: str) -> None:
    from mbbench import checking
    from mbbench.report import verdicts

    if rounds < 5:
        raise UsageError(f"{rounds} rounds show no spread", "give at least 5, better 20")
    _require_seconds(seconds)
    with Display(Console(stderr=True)) as display:
        found = list(checking.calibrate(planning.plan(profile), rounds, seconds, display))
    tables = [verdicts.calibrated(cell, noise) for cell, noise in found]
    _write_tables(tables, [{"cell": cell, "noise": noise} for cell, noise in found], output)


def _require_seconds(seconds: float) -> None:
    if not 1 <= seconds <= 3600:
        raise UsageError(f"{seconds:g} s are no time to measure a cell in", "give 1 to 3600")


def _checked(checked: Checked, output: str) -> str:
    from mbbench.report import junit, verdicts

    match output:
        case "json":
            record = {"outcome": checked.outcome, **msgspec.to_builtins(checked)}
            return msgspec.json.format(msgspec.json.encode(record), indent=2).decode() + "\n"
        case "junit":
            return junit.render(checked)
        case _:
            return _document(verdicts.document(checked), output)


def _export(checked: Checked, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_checked(checked, _EXPORTS[path.suffix]))
    except OSError as error:
        tell(f"cannot write {path} ({error.strerror})")


def cost(spec: ModelSpec | None, output: str, *, layers: bool) -> None:
    from mbbench.report import cost as report

    if spec is None:
        reproduction = paper.reproduce()
        _write_tables(report.paper_tables(reproduction), reproduction, output)
        return
    from mbbench.cost import cost_of

    counted = cost_of(spec)
    _write_tables(report.tables(spec, counted, layers=layers), {"spec": spec, "cost": counted}, output)


def explain(results: Path, output: str) -> None:
    from mbbench import explain as explaining
    from mbbench import store
    from mbbench.cost import cost_of

    found = [
        explaining.explain(reference, result, cost_of(result.cell.model))
        for reference, result in explaining.pairs(store.read(results, samples=False))
    ]
    if not found:
        raise UsageError(f"{results} has no cell in fp32 and in another precision", "run with --precision fp32,int8")
    tables = []
    for one in found:
        ratio = units.NONE if one.ratio is None else f"{one.ratio:.2f}"
        title = f"{one.result.cell.model.label} in {one.result.cell.precision} on {one.result.cell.backend}"
        rows = (("Median over fp32's", ratio), *(("", reason) for reason in one.reasons))
        tables.append(Table(title, ("Quantity", "Value"), rows, numeric=False, header=False))
    _write_tables(tables, [{"id": one.result.id, "ratio": one.ratio, "reasons": one.reasons} for one in found], output)


def backends(output: str) -> None:
    found = [registry.describe(name) for name in registry.names()]
    if not found:
        raise BackendError(
            "no backend is installed", "run `pip install -e backends/openvino` in mbbench's checkout, say"
        )
    rows: list[tuple[str, ...]] = []
    for backend in found:
        versions = ", ".join(f"{package} {version}" for package, version in backend.versions.items()) or units.NONE
        if backend.error is not None:
            rows.append((backend.name, versions, "cannot start", ""))
        for device, chip in backend.devices.items():
            rows.append((backend.name, versions, f"{device}: {chip}", " ".join(backend.precisions[device])))
    reasons = tuple(f"{backend.name} cannot start: {backend.error}." for backend in found if backend.error is not None)
    columns = ("Name", "Version", "Device", "Precisions")
    table = Table("Backends", columns, tuple(rows), numeric=False, notes=reasons)
    _write_tables([table], found, output)


def doctor(output: str) -> None:
    from mbbench import doctor as fitness
    from mbbench.machine import fingerprint

    machine = fingerprint()
    before = fitness.snapshot()
    time.sleep(1.0)
    checks = fitness.judge(machine, before, fitness.snapshot())
    rows = tuple((check.name, check.status, check.found, check.remedy or "") for check in checks)
    warnings = sum(check.status == "warn" for check in checks)
    table = Table(
        machine.summary,
        ("Check", "Verdict", "Found", "Remedy"),
        rows,
        numeric=False,
        notes=(f"{warnings} warning(s); nothing was changed." if warnings else "Fit for measuring.",),
    )
    _write_tables([table], {"machine": machine, "id": machine.id, "checks": checks}, output)


def _render(results: Sequence[Result], output: str) -> str:
    from mbbench.report import csv, json, summary

    match output:
        case "json":
            return json.render(results)
        case "csv":
            return csv.render(results)
        case _:
            return _document(summary.document(results), output)


def _document(content: Document, output: str) -> str:
    from mbbench.report import markdown, terminal

    if output == "markdown":
        return markdown.render(content)
    console = Console()
    return terminal.render(content, width=console.width, color=console.is_terminal and not console.no_color)


def _write_tables(tables: list[Table], record: object, output: str) -> None:
    """Tables for people, or the plain data behind them."""
    from mbbench.report import markdown, terminal

    match output:
        case "json":
            _write(msgspec.json.format(msgspec.json.encode(record), indent=2).decode() + "\n")
        case "markdown":
            _write("\n\n".join(map(markdown.render_table, tables)) + "\n")
        case "csv":
            import csv

            for table in tables:
                csv.writer(sys.stdout, lineterminator="\n").writerows([table.columns, *table.rows])
        case _:
            console = Console()
            for table in tables:
                terminal.render_table(console, table)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
