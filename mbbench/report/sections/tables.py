"""Every cell of a report, as tables: speed, worth, and by phase."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

from mbbench.report import units
from mbbench.report.document import Table
from mbbench.result import Phase, Result
from mbbench.spec import Precision

Name = Callable[[Result], str]
_PHASES: tuple[tuple[Phase, str], ...] = (
    ("import", "Import"),
    ("compile", "Load"),
    ("first_inference", "First inference"),
    ("steady", "Steady"),
)


def speed(results: Sequence[Result], name: Name) -> Table:
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
        rows.append((name(result), *figures, units.number(None if throughput is None else throughput.images_per_s)))
    columns = ("Cell", "Median, ms [95 %]", "p90, ms", "p99, ms", "Images/s")
    return Table("Speed", columns, tuple(rows))


def worth(results: Sequence[Result], name: Name) -> Table:
    rows = []
    for result in results:
        accuracy = result.measured.accuracy
        rows.append(
            (
                name(result),
                units.megabytes(result.peak_rss_bytes()),
                units.megabytes(result.size_bytes()),
                units.NONE if accuracy is None else units.percent(accuracy.top1, accuracy.top1_ci95),
                units.NONE if accuracy is None else units.percent(accuracy.agreement),
            )
        )
    data = sorted({f"{r.data.images} images of {r.data.name}" for r in results if r.data is not None})
    columns = ("Cell", "Peak memory", "Size", "Top-1 [95 %]", "Agreement")
    notes = (f"Accuracy on {', '.join(data)}. Agreement: how often top-1 is that of PyTorch in fp32.",) if data else ()
    return Table("Memory, size and accuracy", columns, tuple(rows), notes=notes)


def trade_off(front: Sequence[Result], name: Name, where: str) -> Table:
    rows = []
    for result in front:
        accuracy = result.measured.accuracy
        assert accuracy is not None
        rows.append(
            (
                name(result),
                units.milliseconds(result.median_ms()),
                units.percent(accuracy.top1, accuracy.top1_ci95),
                units.megabytes(result.size_bytes()),
                units.megabytes(result.peak_rss_bytes()),
            )
        )
    columns = ("Cell", "Median", "Top-1 [95 %]", "Size", "Peak memory")
    return Table(f"The front: {where}", columns, tuple(rows), notes=("No other cell is both faster and better.",))


def memory(results: Sequence[Result], name: Name) -> Table:
    rows = []
    for result in results:
        peaks = {reading.phase: reading.peak_rss_bytes for reading in result.measured.memory}
        rows.append((name(result), *(units.megabytes(peaks.get(phase)) for phase, _ in _PHASES)))
    return Table(
        "Peak resident memory by the end of each phase", ("Cell", *(title for _, title in _PHASES)), tuple(rows)
    )


def energy(results: Sequence[Result], name: Name) -> Table:
    """Of the cells whose chip counts it; without rows where none does."""
    known = [(result, used) for result in results if (used := result.measured.energy) is not None]
    rows = [
        (
            name(result),
            units.millijoules(used.joules_per_image, used.joules_per_image_ci95, unit=""),
            units.number(used.idle_watts),
            units.number(used.busy_watts),
            str(used.images),
        )
        for result, used in known
    ]
    counters = "; ".join(dict.fromkeys(used.counter for _, used in known))
    columns = ("Cell", "An image, mJ [95 %]", "Idle, W", "Busy, W", "Images")
    notes = (
        f"An image: what idling takes is subtracted. Counted by {counters}: whole chips, other processes too. The"
        " interval tells how far stretches of calls agree, not how right the counter is.",
    )
    return Table("Energy", columns, tuple(rows), notes=notes)


def device(results: Sequence[Result], name: Name) -> Table:
    rows = []
    for result in results:
        times, latency = result.measured.device_times, result.measured.latency
        if times is None:
            continue
        parts = (times.to_device_ms, times.compute_ms, times.to_host_ms)
        rows.append(
            (
                name(result), *map(units.number, parts), units.number(None if latency is None else latency.median_ms),
                units.megabytes(result.measured.device_memory_bytes),
            )
        )  # fmt: skip
    columns = ("Cell", "To it, ms", "Compute, ms", "Back, ms", "The host's view, ms", "Its memory")
    notes = (
        "Medians: of a few calls by the device's own clock, and of all by the host's. Memory: what the process held, as"
        " the driver says.",
    )
    return Table("A call on the device", columns, tuple(rows), notes=notes)


def cold(results: Sequence[Result], name: Name) -> Table:
    rows = []
    for result in results:
        if (start := result.measured.cold) is None:
            continue
        load = units.NONE if start.load_s is None else units.seconds(start.load_s)
        total = start.import_s + (start.load_s or 0) + start.compile_s + start.first_inference_ms / 1e3
        rows.append(
            (
                name(result), units.seconds(start.import_s), load, units.seconds(start.compile_s),
                units.milliseconds(start.first_inference_ms), units.seconds(total),
            )
        )  # fmt: skip
    columns = ("Cell", "Import", "Load", "Compile", "First inference", "Together")
    notes = ("A dash under Load: the runtime reads and compiles in one call.",)
    return Table("From a fresh process to the first answer", columns, tuple(rows), notes=notes)


def served(results: Sequence[Result], name: Name) -> Table | None:
    """None where no scenario was asked for."""
    rows = []
    for result in results:
        for one in result.measured.served:
            what = f"{one.scenario} of {one.batch}" if one.batch > 1 else one.scenario
            if (streams := one.effective.get("streams")) is not None:
                what += f" on {streams}"
            rows.append((name(result), what, *map(units.number, (one.images_per_s, one.p90_ms, one.p99_ms))))
    if not rows:
        return None
    columns = ("Cell", "Scenario", "Images/s", "p90, ms", "p99, ms")
    bounds = sorted({one.bound_ms for result in results for one in result.measured.served if one.bound_ms is not None})
    notes = [
        "MLPerf Inference's scenarios, of so many images in a query, on so many streams. Latency counts from a query's"
        " arrival, waiting included; offline has none."
    ]
    if bounds:
        kept = ", ".join(f"{bound:g}" for bound in bounds)
        notes.append(f"Server: the largest rate of random arrivals at which 99 % were answered within {kept} ms.")
    return Table("Throughput", columns, tuple(rows), notes=(" ".join(notes),))


def executed(results: Sequence[Result], name: Name) -> Table:
    rows = []
    for result in results:
        if (info := result.executed) is None:
            continue
        shares = {share.precision: share.mult_adds_share for share in info.shares}
        known = [shares.pop(kind, 0.0) for kind in get_args(Precision)]
        rows.append((name(result), *map(units.percent, (*known, sum(shares.values()))), str(info.moves)))
    columns = ("Cell", *get_args(Precision), "unknown", "Moves")
    notes = (
        "Shares of Mult-Adds by the precision that the runtime says it executed. Moves: nodes that only convert or"
        " reorder tensors.",
    )
    return Table("Executed precision", columns, tuple(rows), notes=notes)


def pairs(results: Sequence[Result]) -> list[tuple[Result, Result]]:
    """Each cell of a lower precision, and the same cell in fp32."""

    def key(result: Result) -> tuple[object, ...]:
        cell = result.cell
        return (result.machine.id, cell.model, cell.role, cell.backend, cell.device, result.settings.threads)

    plain = {key(result): result for result in results if result.cell.precision == "fp32"}
    return [
        (result, other)
        for result in results
        if result.cell.precision != "fp32" and (other := plain.get(key(result))) is not None
    ]


def compression(results: Sequence[Result], name: Name) -> Table:
    rows = []
    for result, other in pairs(results):
        accuracy = result.measured.accuracy
        drop = None if accuracy is None else accuracy.drop
        lost = units.NONE
        if drop is not None:
            lost = f"{-drop.share * 100:+z.2f} [{-drop.ci95.high * 100:+z.2f}, {-drop.ci95.low * 100:+z.2f}]"
        rows.append(
            (
                name(result),
                _share(result.median_ms(), other.median_ms()),
                _share(result.size_bytes(), other.size_bytes()),
                _share(result.peak_rss_bytes(), other.peak_rss_bytes()),
                lost,
                units.NONE if drop is None else f"{drop.p_value:.2g}",
            )
        )
    columns = ("Cell", "Latency", "Size", "Memory", "Top-1 [95 %]", "p")
    notes = (
        "Over the same cell in fp32: below 1 is faster or smaller. Top-1 in points, on the same images; McNemar's p"
        " below 0.05 says that they can show a change.",
        *noise(results),
    )
    return Table("What a lower precision buys and costs", columns, tuple(rows), notes=notes)


def noise(results: Sequence[Result]) -> tuple[str, ...]:
    """The warning that INT8 was calibrated on what is no image."""
    if any(result.quantization and result.quantization.calibration == "random" for result in results):
        return ("INT8 was calibrated on NOISE: its accuracy means nothing.",)
    return ()


def soundness(results: Sequence[Result], name: Name) -> Table:
    """What the warnings are drawn from, of every cell."""
    rows = []
    for result in results:
        if (latency := result.measured.latency) is None:
            continue
        ci, warm_up = latency.median_ci95_ms, latency.warm_up
        half = None if ci is None else (ci.high - ci.low) / 2 / latency.median_ms
        rows.append(
            (
                name(result), str(latency.n), units.NONE if half is None else f"± {half * 100:.1f} %",
                units.NONE if latency.outliers is None else str(latency.outliers),
                units.NONE if latency.drift is None else f"{latency.drift * 100:+.1f} %",
                f"{units.seconds(warm_up.seconds)}{'' if warm_up.steady else ', not settled'}",
            )
        )  # fmt: skip
    columns = ("Cell", "Runs", "Median", "Outliers", "Drift", "Warm-up")
    notes = (
        "Median: half of its 95 % interval. Drift: the last quarter's median over the first's. Outliers are kept.",
    )
    return Table("How sound the latencies are", columns, tuple(rows), notes=notes)


def machines(results: Sequence[Result]) -> Table:
    rows = []
    for machine in dict.fromkeys(result.machine for result in results):
        where = f"{machine.os} {machine.kernel}, Python {machine.python}"
        limits = [] if machine.cgroup_cpu_quota is None else [f"{machine.cgroup_cpu_quota:g} cores by quota"]
        limits += [] if machine.hypervisor is None else [f"virtual ({machine.hypervisor})"]
        rows.append((machine.summary, where, ", ".join(limits) or "bare metal, no quota", machine.id))
    return Table("Machines", ("Machine", "System", "Limits", "Id"), tuple(rows), numeric=False)


def settings(results: Sequence[Result]) -> Table:
    rows = []
    kinds: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        chosen = result.settings
        text = (
            f"{chosen.threads} thread{'s' * (chosen.threads > 1)}, batch {chosen.batch}, at least {chosen.min_samples}"
            f" runs and {chosen.min_s:g} s, at most {chosen.max_s:g} s; throughput at batch {chosen.bulk_batch} for"
            f" {chosen.throughput_s:g} s"
        )
        versions = ", ".join(f"{package} {version}" for package, version in sorted(result.versions.items()))
        kinds.setdefault((text, versions), []).append(result)
    for (text, versions), group in kinds.items():
        times = sorted(result.time_utc for result in group)
        span = times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"
        rows.append((f"{len(group)} cell{'s' * (len(group) > 1)}", text, versions, span))
    return Table("Settings", ("Cells", "Settings", "Versions", "When"), tuple(rows), numeric=False)


def _share(own: float | None, other: float | None) -> str:
    return units.NONE if own is None or not other else f"{own / other:.2f}"
