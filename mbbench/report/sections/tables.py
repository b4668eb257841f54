"""Tables with a row per cell: speed, accuracy, memory, energy, cold start; and the machines and settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from mbbench.report import units
from mbbench.report.document import Table
from mbbench.report.names import Name, labels_label, preprocessing_label
from mbbench.result import Phase, Result
from mbbench.spec import Precision

_PHASES: tuple[tuple[Phase, str], ...] = (
    ("import", "Import"),
    ("compile", "Load"),
    ("first_inference", "First inference"),
    ("steady", "Steady"),
)


def speed(results: Sequence[Result], name: Name) -> Table:
    """Return median, p90 and p99 latency, and throughput."""
    rows = []
    for result in results:
        latency, throughput = result.measured.latency, result.measured.throughput
        figures = [units.MISSING] * 3
        if latency is not None:
            figures = [
                units.number(latency.median_ms, interval=latency.median_ci95_ms),
                units.number(latency.p90_ms),
                units.number(latency.p99_ms),
            ]
        rows.append((name(result), *figures, units.number(None if throughput is None else throughput.images_per_s)))
    columns = ("Cell", "Median, ms [95 %]", "p90, ms", "p99, ms", "Images/s")
    return Table("Speed", columns, tuple(rows))


def size_and_accuracy(results: Sequence[Result], name: Name) -> Table:
    """Return peak memory, the device's memory if it has its own, artifact size, top-1, and agreement with PyTorch."""
    on_device = any(result.measured.device_memory_bytes is not None for result in results)
    rows = []
    for result in results:
        accuracy = result.measured.accuracy
        rows.append(
            (
                name(result),
                units.megabytes(result.peak_rss_bytes()),
                *([units.megabytes(result.measured.device_memory_bytes)] if on_device else []),
                units.megabytes(result.size_bytes()),
                units.MISSING if accuracy is None else units.percent(accuracy.top1, accuracy.top1_ci95),
                units.MISSING if accuracy is None else units.percent(accuracy.agreement),
            )
        )
    data = sorted(
        {
            f"{r.data.images} images of {r.data.name}{f' ({mapped})' if (mapped := labels_label(r)) else ''}"
            for r in results
            if r.data is not None
        }
    )
    device_memory = ("Device memory",) if on_device else ()
    columns = ("Cell", "Peak memory", *device_memory, "Size", "Top-1 [95 %]", "Agreement")
    notes = (
        f"Accuracy on {', '.join(data)}. Agreement: share of images with the same top-1 class as PyTorch in fp32.",
    )
    return Table("Memory, size and accuracy", columns, tuple(rows), notes=notes if data else ())


def pareto_front(front: Sequence[Result], name: Name, title: str) -> Table:
    """Return the cells of a Pareto front; `title` states their device and images."""
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
    notes = ("No cell is both faster and more accurate than any of these.",)
    return Table(f"Pareto front: {title}", columns, tuple(rows), notes=notes)


def memory(results: Sequence[Result], name: Name) -> Table:
    """Return the peak resident memory at the end of each phase."""
    rows = []
    for result in results:
        peaks = {reading.phase: reading.peak_rss_bytes for reading in result.measured.memory}
        rows.append((name(result), *(units.megabytes(peaks.get(phase)) for phase, _ in _PHASES)))
    columns = ("Cell", *(title for _, title in _PHASES))
    return Table("Peak resident memory at the end of each phase", columns, tuple(rows))


def energy(results: Sequence[Result], name: Name) -> Table:
    """Return the energy per image of the cells whose chip counts it; the table may have no rows."""
    counted = [(result, used) for result in results if (used := result.measured.energy) is not None]
    rows = [
        (
            name(result),
            units.millijoules(used.joules_per_image, used.joules_per_image_ci95, unit=""),
            units.number(used.idle_watts),
            units.number(used.busy_watts),
            str(used.images),
        )
        for result, used in counted
    ]
    counters = "; ".join(dict.fromkeys(used.counter for _, used in counted))
    columns = ("Cell", "Per image, mJ [95 %]", "Idle, W", "Busy, W", "Images")
    notes = (
        f"Energy per image excludes idle power. Counter: {counters}; it counts whole chips, including other processes."
        " The interval shows how well repeated stretches of calls agree, not how accurate the counter is.",
    )
    return Table("Energy", columns, tuple(rows), notes=notes)


def device(results: Sequence[Result], name: Name) -> Table:
    """Return the parts of a call on a device with its own memory and clock; the table may have no rows."""
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
    tf32 = {fact for result in results if (fact := result.measured.effective.get("tf32")) is not None}
    columns = ("Cell", "Copy in, ms", "Compute, ms", "Copy out, ms", "Host median, ms", "Device memory")
    notes = (
        "Copies and compute: medians of a few calls, timed by the device's clock. Host median: of all calls, timed by"
        " the host's clock. Device memory: held by the process, as reported by the driver.",
        *(("TF32 is off: fp32 cells multiply in fp32.",) if tf32 == {"off"} else ()),
    )
    return Table("Time of a call on the device", columns, tuple(rows), notes=notes)


def cold_start(results: Sequence[Result], name: Name) -> Table:
    """Return the times of a fresh process from import to its first inference."""
    rows = []
    for result in results:
        if (start := result.measured.cold) is None:
            continue
        load = units.MISSING if start.load_s is None else units.seconds(start.load_s)
        total = start.import_s + (start.load_s or 0) + start.compile_s + start.first_inference_ms / 1e3
        rows.append(
            (
                name(result), units.seconds(start.import_s), load, units.seconds(start.compile_s),
                units.milliseconds(start.first_inference_ms), units.seconds(total),
            )
        )  # fmt: skip
    columns = ("Cell", "Import", "Load", "Compile", "First inference", "Total")
    notes = ("A dash under Load: the runtime loads and compiles the model in one call.",)
    return Table("From import to the first inference in a fresh process", columns, tuple(rows), notes=notes)


def scenarios(results: Sequence[Result], name: Name) -> Table | None:
    """Return throughput and latency by MLPerf scenario, or None if no scenario was measured."""
    measured = [(result, served) for result in results for served in result.measured.served]
    if not measured:
        return None
    rows = []
    for result, served in measured:
        streams = served.effective.get("streams")
        details = [f"batch {served.batch}"] if served.batch > 1 else []
        details += [] if streams is None else [f"{streams} stream{'s' * (streams != '1')}"]
        scenario = f"{served.scenario} ({', '.join(details)})" if details else served.scenario
        rows.append((name(result), scenario, *map(units.number, (served.images_per_s, served.p90_ms, served.p99_ms))))
    columns = ("Cell", "Scenario", "Images/s", "p90, ms", "p99, ms")
    note = (
        "Scenarios of MLPerf Inference. Batch: images in a query. Latency counts from a query's arrival and includes"
        " its wait; offline has none."
    )
    if bounds := sorted({served.bound_ms for _, served in measured if served.bound_ms is not None}):
        limits = ", ".join(f"{bound:g}" for bound in bounds)
        note += f" Server: the highest rate of random arrivals at which 99 % were answered within {limits} ms."
    return Table("Throughput", columns, tuple(rows), notes=(note,))


def executed(results: Sequence[Result], name: Name) -> Table:
    """Return the share of Mult-Adds that the runtime executed in each precision."""
    rows = []
    for result in results:
        if (info := result.executed) is None:
            continue
        shares = {share.precision: share.mult_adds_share for share in info.shares}
        by_precision = [shares.pop(kind, 0.0) for kind in get_args(Precision)]
        rows.append((name(result), *map(units.percent, (*by_precision, sum(shares.values()))), str(info.moves)))
    columns = ("Cell", *get_args(Precision), "unknown", "Moves")
    notes = (
        "Shares of Mult-Adds by executed precision, as reported by the runtime. Moves: nodes that only convert or"
        " reorder tensors.",
    )
    return Table("Executed precision", columns, tuple(rows), notes=notes)


def latency_quality(results: Sequence[Result], name: Name) -> Table:
    """Return the precision, outliers, drift and warm-up of every cell's latency, which the warnings are based on."""
    rows = []
    for result in results:
        if (latency := result.measured.latency) is None:
            continue
        ci, warm_up = latency.median_ci95_ms, latency.warm_up
        half = None if ci is None else (ci.high - ci.low) / 2 / latency.median_ms
        rows.append(
            (
                name(result), str(latency.n), units.MISSING if half is None else f"± {half * 100:.1f} %",
                units.MISSING if latency.outliers is None else str(latency.outliers),
                units.MISSING if latency.drift is None else f"{latency.drift * 100:+.1f} %",
                f"{units.seconds(warm_up.seconds)}{'' if warm_up.steady else ', not settled'}",
            )
        )  # fmt: skip
    columns = ("Cell", "Runs", "Median", "Outliers", "Drift", "Warm-up")
    notes = (
        "Median: half the width of its 95 % interval. Drift: the median of the last quarter of the runs relative to"
        " that of the first. Outliers are included in every figure.",
    )
    return Table("Quality of the latency measurements", columns, tuple(rows), notes=notes)


def machines(results: Sequence[Result]) -> Table:
    """Return a row for each machine: hardware, system, limits and ID."""
    rows = []
    for machine in dict.fromkeys(result.machine for result in results):
        system = f"{machine.os} {machine.kernel}, Python {machine.python}"
        limits = [] if machine.cgroup_cpu_quota is None else [f"CPU quota of {machine.cgroup_cpu_quota:g} cores"]
        limits += [] if machine.hypervisor is None else [f"virtual machine ({machine.hypervisor})"]
        rows.append((machine.summary, system, ", ".join(limits) or "bare metal, no quota", machine.id))
    return Table("Machines", ("Machine", "System", "Limits", "ID"), tuple(rows), numeric=False)


def settings(results: Sequence[Result]) -> Table:
    """Return a row for each combination of settings and versions, with the number of cells and when they were run."""
    rows = []
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        chosen = result.settings
        text = (
            f"{chosen.threads} thread{'s' * (chosen.threads > 1)}, batch {chosen.batch}, at least {chosen.min_samples}"
            f" runs and {chosen.min_s:g} s, at most {chosen.max_s:g} s; throughput at batches up to {chosen.bulk_batch}"
            f" for {chosen.throughput_s:g} s"
        )
        if result.preprocessing is not None:
            text += f"; {preprocessing_label(result)}"
        versions = ", ".join(f"{package} {version}" for package, version in sorted(result.versions.items()))
        groups.setdefault((text, versions), []).append(result)
    for (text, versions), group in groups.items():
        times = sorted(result.time_utc for result in group)
        span = times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"
        rows.append((f"{len(group)} cell{'s' * (len(group) > 1)}", text, versions, span))
    return Table("Settings", ("Cells", "Settings", "Versions", "Measured"), tuple(rows), numeric=False)
