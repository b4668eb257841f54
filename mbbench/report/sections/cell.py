"""All that was measured of one cell, a line a quantity."""

from __future__ import annotations

from mbbench.report import units
from mbbench.report.document import Table
from mbbench.report.names import device_of
from mbbench.result import Accuracy, DataInfo, Drop, Result

_SIGNIFICANT = 0.05


def card(result: Result) -> Table:
    """All that was measured of one cell, a line a quantity."""
    measured = result.measured
    rows: list[tuple[str, str]] = []
    if (latency := measured.latency) is not None:
        text = f"median {units.milliseconds(latency.median_ms, latency.median_ci95_ms)}"
        rows.append(("Latency", f"{text}, {latency.n} runs of batch {latency.batch}"))
        tail = (f"p90 {units.milliseconds(latency.p90_ms)}", f"p99 {units.milliseconds(latency.p99_ms)}")
        rows.append(("", ", ".join((f"min {units.milliseconds(latency.min_ms)}", *tail))))
    if (times := measured.device_times) is not None:
        parts = (("in", times.to_device_ms), ("compute", times.compute_ms), ("out", times.to_host_ms))
        text = ", ".join(f"{name} {units.milliseconds(value)}" for name, value in parts)
        rows.append(("On the device", f"{text} (medians of {times.n} calls, by its clock)"))
    if (throughput := measured.throughput) is not None:
        rows.append(
            ("Throughput", f"{units.significant(throughput.images_per_s)} images/s at batch {throughput.batch}")
        )
    if measured.memory:
        phases = ", ".join(f"{name} {units.megabytes(peak)}" for name, peak in _memory_phases(result))
        rows.append(("Peak memory", f"{units.megabytes(result.peak_rss_bytes())} resident ({phases})"))
    rows += _energy(result)
    if (held := measured.device_memory_bytes) is not None:
        rows.append(("Device memory", f"{units.megabytes(held)} held by the process, as the driver says"))
    if result.artifact is not None:
        rows.append(("Size", f"{units.megabytes(result.artifact.size_bytes)} on disk ({result.artifact.format})"))
    if (cold := measured.cold) is not None:
        seconds = ", ".join(
            f"{name} {units.seconds(value)}"
            for name, value in (("import", cold.import_s), ("load", cold.load_s), ("compile", cold.compile_s))
            if value is not None
        )
        made = [f"{what} {measured.effective[what]}" for what in ("engine", "kernels") if what in measured.effective]
        compiled = f" ({', '.join(made)})" if made else ""
        first = f"first inference {units.milliseconds(cold.first_inference_ms)}"
        rows.append(("Cold start", f"{seconds}{compiled}, {first}"))
    if (accuracy := measured.accuracy) is not None and result.data is not None:
        rows.append(("Accuracy", _accuracy(result, accuracy, result.data)))
        errors = f"{accuracy.max_abs_logit_error:.2g} (mean {accuracy.mean_abs_logit_error:.2g})"
        agreement = units.percent(accuracy.agreement)
        if (drop := accuracy.drop) is not None and result.cell.precision != "fp32":
            rows.append(("vs. fp32", drop_text(drop, accuracy.images)))
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


def drop_text(drop: Drop, images: int) -> str:
    """The loss in points, and whether the images can show one at all."""
    low, high = drop.ci95.low * 100, drop.ci95.high * 100
    verdict = "a real difference" if drop.p_value < _SIGNIFICANT else f"no difference that {images} images can show"
    return (
        f"top-1 {-drop.share * 100:+z.2f} points [{-high:+z.2f}, {-low:+z.2f}], {verdict}"
        f" (McNemar p {drop.p_value:.2g});"
        f" class {drop.worst_class} lost most, {drop.worst_class_share * 100:.1f} points"
    )


def _energy(result: Result) -> list[tuple[str, str]]:
    """What an image takes, or why that is not known; nothing in records from before it was measured."""
    if (energy := result.measured.energy) is None:
        return [("Energy", f"{units.NONE} ({result.reasons['energy']})")] if "energy" in result.reasons else []
    above = f"{units.number(energy.busy_watts, 'W')} busy, {units.number(energy.idle_watts, 'W')} idle"
    image = units.millijoules(energy.joules_per_image, energy.joules_per_image_ci95)
    return [
        ("Energy", f"{image} an image at batch {energy.batch}, idling subtracted"),
        ("", f"{above} by {energy.counter}: all of the chip, other processes too"),
    ]


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
