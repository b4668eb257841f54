"""What a report says, before it has a format: tables and notes, as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mbbench import paper
from mbbench.report import units
from mbbench.result import Accuracy, DataInfo, Drop, Result
from mbbench.stats import median, samples_needed

_SIGNIFICANT = 0.05
_DRIFT = 0.05  # of the first quarter's median: what a reader should hear of
_MANY_OUTLIERS = 0.01


@dataclass(frozen=True, slots=True)
class Table:
    """`numeric` right-aligns all columns but the first; `header` shows their names; `notes` are paragraphs below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: bool = True
    header: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    headline: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...]


def document(results: Sequence[Result]) -> Document:
    subjects = [result for result in results if result.cell.role == "subject"]
    tables: list[Table] = []
    if len(subjects) == 1:
        tables.append(_card(subjects[0]))
    elif subjects:
        tables += [_speed(subjects), _worth(subjects)]
    tables += [table for subject in subjects for table in _curves(subject)]
    for subject in subjects:
        baselines = [r for r in results if r.cell.role == "baseline" and r.cell.backend == subject.cell.backend]
        if baselines and subject.failure is None:
            tables.append(_against(subject, baselines))
    return Document(_headline(results), tuple(tables), tuple(_notes(results)))


def device_of(result: Result) -> str:
    """`openvino 2026.4.1 int8`, with the device if one was asked for; fp32 goes without saying."""
    version = result.versions.get(result.cell.backend) or result.versions.get(result.cell.backend.split("-")[0], "")
    precision = "" if result.cell.precision == "fp32" else result.cell.precision
    return " ".join(part for part in (result.cell.backend, version, result.cell.device, precision) if part)


def _headline(results: Sequence[Result]) -> str:
    """One sentence with the figures of the subject that has the lowest median."""
    whole = [
        (result, result.measured.latency)
        for result in results
        if result.cell.role == "subject" and result.measured.latency is not None and result.failure is None
    ]
    if not whole:
        return "Nothing was measured completely."
    subject, latency = min(whole, key=lambda pair: pair[1].median_ms)
    accuracy = subject.measured.accuracy
    what = "an image" if latency.batch == 1 else f"a batch of {latency.batch}"
    if len(whole) > 1:
        what += f" (the lowest median of {len(whole)} cells)"
    parts = [f"{place(subject)}: {units.milliseconds(latency.median_ms)} {what}"]
    if accuracy is not None and accuracy.top1 is not None and subject.data is not None:
        parts.append(f"{units.percent(accuracy.top1)} top-1 on {subject.data.name}")
    if subject.artifact is not None:
        parts.append(f"{units.megabytes(subject.artifact.size_bytes)} on disk")
    vgg = next(
        (r for r in results
         if r.cell.model.family == "vgg16" and r.cell.role == "baseline" and r.measured.latency is not None
         and r.cell.backend == subject.cell.backend), None)  # fmt: skip
    if vgg is not None and vgg.measured.latency is not None:
        parts.append(f"{units.ratio(vgg.measured.latency.median_ms, latency.median_ms)} faster than VGG16 there")
    return ", ".join(parts) + "."


def _card(result: Result) -> Table:
    """All that was measured of one cell, a line a quantity."""
    measured = result.measured
    rows: list[tuple[str, str]] = []
    if (latency := measured.latency) is not None:
        text = f"median {units.milliseconds(latency.median_ms, latency.median_ci95_ms)}"
        rows.append(("Latency", f"{text}, {latency.n} runs of batch {latency.batch}"))
        tail = (f"p90 {units.milliseconds(latency.p90_ms)}", f"p99 {units.milliseconds(latency.p99_ms)}")
        rows.append(("", ", ".join((f"min {units.milliseconds(latency.min_ms)}", *tail))))
    if (throughput := measured.throughput) is not None:
        rows.append(
            ("Throughput", f"{units.significant(throughput.images_per_s)} images/s at batch {throughput.batch}")
        )
    if measured.memory:
        phases = ", ".join(f"{name} {units.megabytes(peak)}" for name, peak in _memory_phases(result))
        rows.append(("Peak memory", f"{units.megabytes(result.peak_rss_bytes())} resident ({phases})"))
    if result.artifact is not None:
        rows.append(("Size", f"{units.megabytes(result.artifact.size_bytes)} on disk ({result.artifact.format})"))
    if (cold := measured.cold) is not None:
        seconds = ", ".join(
            f"{name} {units.seconds(value)}"
            for name, value in (("import", cold.import_s), ("load", cold.load_s), ("compile", cold.compile_s))
            if value is not None
        )
        rows.append(("Cold start", f"{seconds}, first inference {units.milliseconds(cold.first_inference_ms)}"))
    if (accuracy := measured.accuracy) is not None and result.data is not None:
        rows.append(("Accuracy", _accuracy(result, accuracy, result.data)))
        errors = f"{accuracy.max_abs_logit_error:.2g} (mean {accuracy.mean_abs_logit_error:.2g})"
        agreement = units.percent(accuracy.agreement)
        if (drop := accuracy.drop) is not None and result.cell.precision != "fp32":
            rows.append(("vs. fp32", _drop(drop, accuracy.images)))
        rows.append(("vs. PyTorch", f"top-1 agrees on {agreement}, logits differ by at most {errors}"))
    if (cost := result.cost) is not None:
        activations = f"activations peak at {units.megabytes(cost.activation_peak_bytes)}"
        counts = f"{units.millions(cost.mult_adds)} Mult-Adds, {units.millions(cost.parameters)} parameters"
        rows.append(("Cost", f"{counts}, {activations}"))
    rows += _precision(result)
    rows.append(("Settings", _settings(result)))
    rows.append(("Machine", result.machine.summary))
    title = f"{result.cell.model.label} on {device_of(result)}"
    return Table(
        title, ("Quantity", "Value"), tuple(rows), numeric=False, header=False, notes=("Brackets hold 95 % intervals.",)
    )


def _drop(drop: Drop, images: int) -> str:
    """The loss in points, and whether the images can show one at all."""
    low, high = drop.ci95.low * 100, drop.ci95.high * 100
    verdict = "a real difference" if drop.p_value < _SIGNIFICANT else f"no difference that {images} images can show"
    return (
        f"top-1 {-drop.share * 100:+.2f} points [{-high:+.2f}, {-low:+.2f}], {verdict} (McNemar p {drop.p_value:.2g});"
        f" class {drop.worst_class} lost most, {drop.worst_class_share * 100:.1f} points"
    )


def _precision(result: Result) -> list[tuple[str, str]]:
    """What was executed, and how INT8 was made."""
    rows = []
    if (executed := result.executed) is not None:
        shares = ", ".join(
            f"{units.percent(share.mult_adds_share)} of Mult-Adds in {share.precision} ({share.layers} layers)"
            for share in executed.shares
        )
        rows.append(("Executed", shares))
    if (made := result.quantization) is not None:
        chosen = made.chosen
        how = [f"{chosen.ranges} ranges"]
        how += ["equalized"] if chosen.equalized else []
        how += ["errors corrected"] if chosen.corrected else []
        how += [f"{len(made.kept_fp32)} nodes kept in fp32"] if made.kept_fp32 else []
        how += [f"Q/DQ dialect {result.artifact.dialect}"] if result.artifact is not None else []
        noise = " (NOISE: its accuracy means nothing)" if made.calibration == "random" else ""
        rows.append(
            ("Quantization", f"{', '.join(how)}; calibrated on {made.images} images of {made.calibration}{noise}")
        )
    return rows


def _accuracy(result: Result, accuracy: Accuracy, data: DataInfo) -> str:
    if accuracy.top1 is None:
        return f"{units.NONE} ({result.reasons.get('accuracy.top1', 'not measured')})"
    top1, top5 = (
        units.percent(accuracy.top1, accuracy.top1_ci95),
        units.percent(accuracy.top5, accuracy.top5_ci95),
    )
    return f"top-1 {top1}, top-5 {top5} ({data.name}, {accuracy.images} images)"


def _memory_phases(result: Result) -> list[tuple[str, int]]:
    """The high-water mark after importing, loading (with compiling) and the first inference."""
    names = {"import": "import", "compile": "load", "first_inference": "first inference"}
    return [(names[m.phase], m.peak_rss_bytes) for m in result.measured.memory if m.phase in names]


def _settings(result: Result) -> str:
    effective = result.measured.effective
    known = [
        f"{name} {value}" for name, value in effective.items() if name in ("precision", "streams", "mode", "layout")
    ]
    count = effective.get("threads", str(result.settings.threads))
    threads = f"{count} thread{'s' * (count != '1')}"
    pinned = [f"pinned to CPU {effective['cpus']}"] if "cpus" in effective else []
    return ", ".join((threads, *pinned, *known))


def _speed(results: Sequence[Result]) -> Table:
    rows = []
    for result in results:
        latency, throughput = result.measured.latency, result.measured.throughput
        figures = [units.NONE] * 3
        if latency is not None:
            figures = [
                units.number(latency.median_ms, interval=latency.median_ci95_ms),
                units.number(latency.p90_ms),
                units.number(latency.p99_ms),
            ]
        figures.append(units.number(None if throughput is None else throughput.images_per_s))
        rows.append((device_of(result), *figures))
    columns = ("Backend", "Median, ms [95 %]", "p90, ms", "p99, ms", "Images/s")
    return Table(f"Speed of {results[0].cell.model.label}", columns, tuple(rows))


def _worth(results: Sequence[Result]) -> Table:
    rows = []
    for result in results:
        accuracy = result.measured.accuracy
        rows.append(
            (
                device_of(result),
                units.megabytes(result.peak_rss_bytes()),
                units.megabytes(_size_bytes(result)),
                units.NONE if accuracy is None else units.percent(accuracy.top1, accuracy.top1_ci95),
                units.NONE if accuracy is None else units.percent(accuracy.agreement),
            )
        )
    columns = ("Backend", "Peak memory", "Size", "Top-1 [95 %]", "Agreement")
    notes = [
        f"{device_of(result)} against fp32: {_drop(accuracy.drop, accuracy.images)}."
        for result in results
        if result.cell.precision != "fp32"
        and (accuracy := result.measured.accuracy) is not None
        and accuracy.drop is not None
    ]
    if any(result.quantization and result.quantization.calibration == "random" for result in results):
        notes.append("INT8 was calibrated on NOISE: its accuracy means nothing.")
    return Table("Memory, size and accuracy", columns, tuple(rows), notes=tuple(notes))


def _curves(result: Result) -> list[Table]:
    """Sustained mode and duty cycle, where they were measured."""
    tables = []
    if windows := result.measured.sustained:
        medians = [window.median_ms for window in windows]
        first, last = medians[: len(medians) // 10 or 1], medians[-(len(medians) // 10 or 1) :]
        start, end = median(first), median(last)
        rows: tuple[tuple[str, ...], ...] = (
            ("Median over time", units.curve(medians)),
            ("At the start", units.milliseconds(start)),
            ("At the end", f"{units.milliseconds(end)} ({(end / start - 1) * 100:+.1f} %)"),
            ("Lowest, highest", f"{units.milliseconds(min(medians))}, {units.milliseconds(max(medians))}"),
        )
        title = f"{place(result)}, {units.seconds(result.settings.sustain_s or 0)} without a pause"
        tables.append(Table(title, ("Quantity", "Value"), rows, numeric=False, header=False))
    if wakes := result.measured.duty_cycle:
        busy = wakes[0].median_ms
        rows = tuple(
            (
                f"{units.significant(wake.pause_ms)} ms",
                units.milliseconds(wake.median_ms),
                units.ratio(wake.median_ms, busy),
            )
            for wake in wakes
        )
        tables.append(Table(f"{place(result)} after a pause", ("Pause", "Median", "over none"), rows))
    return tables


def _against(subject: Result, baselines: Sequence[Result]) -> Table:
    """Measured and counted ratios beside the paper's claims for 1.0 MobileNet-224."""
    model = subject.cell.model
    columns = ["Quantity", _family(subject)]
    for baseline in baselines:
        columns += [_family(baseline), "ratio", "paper"]
    rows = []
    for name, value_of, render, claim in _QUANTITIES:
        own = value_of(subject)
        row = [name, render(own)]
        for baseline in baselines:
            other = value_of(baseline)
            claims = paper.CLAIMS.get(baseline.cell.model.family)
            row += [render(other), units.ratio(other, own), claims[claim] if claims and claim is not None else ""]
        rows.append(tuple(row))
    published = ", ".join(
        f"{_family(result) if result is not subject else model.label} {found[0]:.1f} % ({found[1]})"
        for result in (subject, *baselines)
        if (found := paper.published_top1(result.cell.model)) is not None
    )
    caption = (
        f"Ratios: the other network over {model.label}, at the same resolution and number of classes; paper: its"
        " claims for 1.0 MobileNet-224. The other networks have random weights. Published ImageNet top-1, not measured"
        f" here: {published}."
    )
    title = f"{model.label} against {' and '.join(map(_family, baselines))} on {subject.cell.backend}"
    return Table(title, tuple(columns), tuple(rows), notes=(caption,))


def _family(result: Result) -> str:
    return result.cell.model.label.rpartition("-")[0]


def _mult_adds(result: Result) -> int | None:
    return None if result.cost is None else result.cost.mult_adds


def _parameters(result: Result) -> int | None:
    return None if result.cost is None else result.cost.parameters


def _size_bytes(result: Result) -> int | None:
    return None if result.artifact is None else result.artifact.size_bytes


def _median_ms(result: Result) -> float | None:
    return None if result.measured.latency is None else result.measured.latency.median_ms


# Name, value, how to write it, and which of the paper's claims (parameters 0, Mult-Adds 1) it stands beside.
_QUANTITIES: tuple[tuple[str, Callable[[Result], Any], Callable[[Any], str], int | None], ...] = (
    ("Mult-Adds", _mult_adds, units.millions, 1),
    ("Parameters", _parameters, units.millions, 0),
    ("Size on disk", _size_bytes, units.megabytes, None),
    ("Median latency", _median_ms, units.milliseconds, None),
    ("Peak memory", Result.peak_rss_bytes, units.megabytes, None),
)


def _notes(results: Sequence[Result]) -> list[str]:
    """Failures, figures that could not be given, and what disturbed the measurement; each once."""
    notes = [
        f"{place(result)} failed: {result.failure.cause}; {result.failure.remedy}."
        for result in results
        if result.failure is not None
    ]
    latencies = [(result, result.measured.latency) for result in results]
    unsettled = [
        f"{place(result)} ({latency.warm_up.seconds:.1f} s)"
        for result, latency in latencies
        if latency is not None and not latency.warm_up.steady
    ]
    if unsettled:
        notes.append(f"Latency had not settled when warm-up ended: {', '.join(unsettled)}.")
    imprecise = [
        f"{place(result)} (± {(ci.high - ci.low) / 2 / latency.median_ms * 100:.1f} %)"
        for result, latency in latencies
        if latency is not None and latency.imprecise and (ci := latency.median_ci95_ms) is not None
    ]
    if imprecise:
        notes.append(
            f"Imprecise, since time was up before the median was known to 1 %: {', '.join(imprecise)}; take"
            " --profile rigorous, or a quieter machine."
        )
    drifted = [
        f"{place(result)} ({latency.drift * 100:+.0f} %)"
        for result, latency in latencies
        if latency is not None and latency.drift is not None and abs(latency.drift) >= _DRIFT
    ]
    if drifted:
        notes.append(
            f"Latency drifted between the first and the last quarter: {', '.join(drifted)}; look for heat, clock rates"
            " and neighbours, and compare by `mbbench check`, where they drop out."
        )
    odd = [
        f"{place(result)} ({latency.outliers} of {latency.n})"
        for result, latency in latencies
        if latency is not None and latency.outliers is not None and latency.outliers >= _MANY_OUTLIERS * latency.n
    ]
    if odd:
        notes.append(f"Outliers, which are counted and kept: {', '.join(odd)}; something else used these cores.")
    for name, q in (("p90", 0.90), ("p99", 0.99)):
        short = [
            f"{place(result)} ({latency.n})"
            for result, latency in latencies
            if latency is not None and f"latency.{name}_ms" in result.reasons
        ]
        if short:
            notes.append(f"No {name}, which needs {samples_needed(q)} samples: {', '.join(short)}.")
    for result in results:
        for check in result.conditions:
            if check.status == "warn":
                notes.append(f"{check.name}: {check.found}; {check.remedy}.")
    return list(dict.fromkeys(notes))


def place(result: Result) -> str:
    precision = "" if result.cell.precision == "fp32" else f" in {result.cell.precision}"
    return f"{result.cell.model.label}{precision} on {result.cell.backend}"
