"""Everything measured about one cell, as a table with a row per quantity."""

from __future__ import annotations

from collections.abc import Sequence

from mbbench.report import units
from mbbench.report.document import Table
from mbbench.report.names import class_label, labels_label, preprocessing_label, runtime_label
from mbbench.report.selection import chip
from mbbench.result import Accuracy, DataInfo, LabelsInfo, Result, Throughput, Top1Drop

_SHOWN_FACTS = ("precision", "tf32", "streams", "mode", "layout")
_MAX_P_VALUE = 0.05  # of a significant change


def cell_table(result: Result) -> Table:
    """Return everything that was measured about one cell, with a row per quantity."""
    measured = result.measured
    rows: list[tuple[str, str]] = []
    if (latency := measured.latency) is not None:
        text = f"median {units.milliseconds(latency.median_ms, latency.median_ci95_ms)}"
        rows.append(("Latency", f"{text}, {latency.n} runs of batch {latency.batch}"))
        tail = (f"p90 {units.milliseconds(latency.p90_ms)}", f"p99 {units.milliseconds(latency.p99_ms)}")
        rows.append(("", ", ".join((f"min {units.milliseconds(latency.min_ms)}", *tail))))
    if (times := measured.device_times) is not None:
        parts = (("copy in", times.to_device_ms), ("compute", times.compute_ms), ("copy out", times.to_host_ms))
        text = ", ".join(f"{name} {units.milliseconds(value)}" for name, value in parts)
        rows.append(("On the device", f"{text} (medians of {times.n} calls, timed by the device)"))
    if (throughput := measured.throughput) is not None:
        rate = f"{units.significant(throughput.images_per_s)} images/s at batch {throughput.batch}"
        rows.append(("Throughput", f"{rate}{_other_throughputs(measured.throughputs, throughput)}"))
    if measured.memory:
        phases = ", ".join(f"{name} {units.megabytes(peak)}" for name, peak in _memory_phases(result))
        rows.append(("Peak memory", f"{units.megabytes(result.peak_rss_bytes())} resident ({phases})"))
        if (added := result.added_rss_bytes()) is not None:
            rows.append(("", f"of which the runtime and the network added {units.megabytes(added)}"))
    rows += _energy(result)
    if (size := measured.device_memory_bytes) is not None:
        rows.append(("Device memory", f"{units.megabytes(size)} held by the process, as reported by the driver"))
    if result.artifact is not None:
        rows.append(("Size", f"{units.megabytes(result.artifact.size_bytes)} on disk ({result.artifact.format})"))
    if (cold := measured.cold) is not None:
        seconds = ", ".join(
            f"{name} {units.seconds(value)}"
            for name, value in (("import", cold.import_s), ("load", cold.load_s), ("compile", cold.compile_s))
            if value is not None
        )
        origins = [f"{part} {measured.effective[part]}" for part in ("engine", "kernels") if part in measured.effective]
        compiled = f" ({', '.join(origins)})" if origins else ""
        first = f"first inference {units.milliseconds(cold.first_inference_ms)}"
        rows.append(("Cold start", f"{seconds}{compiled}, {first}"))
    if (accuracy := measured.accuracy) is not None and result.data is not None:
        rows.append(("Accuracy", _accuracy(result, accuracy, result.data)))
        errors = f"{accuracy.max_abs_logit_error:.2g} (mean {accuracy.mean_abs_logit_error:.2g})"
        agreement = units.percent(accuracy.agreement)
        if (drop := accuracy.drop) is not None and result.cell.precision != "fp32":
            rows.append(("vs. fp32", drop_text(drop, accuracy.images, result.labels)))
        rows.append(("vs. PyTorch", f"same top-1 class on {agreement} of images, logits differ by at most {errors}"))
    if (cost := result.cost) is not None:
        activations = f"activations peak at {units.megabytes(cost.activation_peak_bytes)}"
        counts = f"{units.millions(cost.mult_adds)} Mult-Adds, {units.millions(cost.parameters)} parameters"
        rows.append(("Cost", f"{counts}, {activations}"))
    rows += _precision(result)
    if result.weights is not None and result.weights.notes:
        rows.append(("Weights", ", ".join(result.weights.notes)))
    if result.data is not None and result.data.splits is not None:
        rows.append(("Data", f"{result.data.name}: {result.data.splits.text}"))
    rows.append(("Settings", _settings(result)))
    if not result.setup.on_cpu:
        rows.append(("Device", chip(result)))
    rows.append(("Machine", result.machine.summary))
    title = f"{result.cell.model.label} on {runtime_label(result)}"
    notes = ("Brackets hold 95 % confidence intervals.",)
    return Table(title, ("Quantity", "Value"), tuple(rows), numeric=False, header=False, notes=notes)


def drop_text(drop: Top1Drop, images: int, labels: LabelsInfo | None = None) -> str:
    """Return the change of top-1 in points, whether it is significant, and the class that lost most."""
    low, high = drop.ci95.low * 100, drop.ci95.high * 100
    verdict = "significant" if drop.p_value < _MAX_P_VALUE else "not significant"
    worst = ""
    if drop.worst_class_share > 0:
        worst = f"; {class_label(drop.worst_class, labels)} lost most, {drop.worst_class_share * 100:.1f} points"
    return (
        f"top-1 {-drop.share * 100:+z.2f} points [{-high:+z.2f}, {-low:+z.2f}], {verdict} on {images} images"
        f" (McNemar's p {drop.p_value:.2g}){worst}"
    )


def _other_throughputs(throughputs: Sequence[Throughput], best: Throughput) -> str:
    """Return the rates at the other batch sizes, in parentheses; empty if there are none."""
    rates = [
        f"{units.significant(throughput.images_per_s)} at {throughput.batch}"
        for throughput in throughputs
        if throughput != best
    ]
    return f" ({', '.join(rates)})" if rates else ""


def _energy(result: Result) -> list[tuple[str, str]]:
    """Return the energy per image, or the reason it is unknown; no row for records older than this measurement."""
    if (energy := result.measured.energy) is None:
        return [("Energy", f"{units.MISSING} ({result.reasons['energy']})")] if "energy" in result.reasons else []
    power = f"{units.number(energy.busy_watts, 'W')} busy, {units.number(energy.idle_watts, 'W')} idle"
    image = units.millijoules(energy.joules_per_image, energy.joules_per_image_ci95)
    return [
        ("Energy", f"{image} per image at batch {energy.batch}, idle power excluded"),
        ("", f"{power}, counted by {energy.counter} for the whole chip, including other processes"),
    ]


def _precision(result: Result) -> list[tuple[str, str]]:
    """Return the executed precisions, and how the network was quantized."""
    rows = []
    if (executed := result.executed) is not None:
        shares = ", ".join(
            f"{units.percent(share.mult_adds_share)} of Mult-Adds in {share.precision} ({share.layers} layers)"
            for share in executed.shares
        )
        rows.append(("Executed", shares))
    if (quantization := result.quantization) is not None:
        chosen = quantization.chosen
        steps = [f"{chosen.ranges} ranges"]
        steps += ["equalized"] if chosen.equalized else []
        steps += ["errors corrected"] if chosen.corrected else []
        steps += [f"{len(quantization.kept_fp32)} nodes kept in fp32"] if quantization.kept_fp32 else []
        steps += [f"Q/DQ dialect {result.artifact.dialect}"] if result.artifact is not None else []
        images = f"{quantization.images} images of {quantization.calibration}"
        if quantization.calibration == "random":
            images = f"{quantization.images} images of RANDOM NOISE: accuracy is meaningless"
        rows.append(("Quantization", f"{', '.join(steps)}; calibrated on {images}"))
    return rows


def _accuracy(result: Result, accuracy: Accuracy, data: DataInfo) -> str:
    if accuracy.top1 is None:
        return f"{units.MISSING} ({result.reasons.get('accuracy.top1', 'not measured')})"
    top1, top5 = (
        units.percent(accuracy.top1, accuracy.top1_ci95),
        units.percent(accuracy.top5, accuracy.top5_ci95),
    )
    images = ", ".join(part for part in (data.name, f"{accuracy.images} images", labels_label(result)) if part)
    return f"top-1 {top1}, top-5 {top5} ({images})"


def _memory_phases(result: Result) -> list[tuple[str, int]]:
    """Return the peak memory after import, load (with compilation) and the first inference."""
    names = {"import": "import", "compile": "load", "first_inference": "first inference"}
    return [(names[m.phase], m.peak_rss_bytes) for m in result.measured.memory if m.phase in names]


def _settings(result: Result) -> str:
    effective = result.measured.effective
    facts = [f"{name} {value}" for name, value in effective.items() if name in _SHOWN_FACTS]
    count = effective.get("threads", str(result.settings.threads))
    threads = f"{count} thread{'s' * (count != '1')}"
    pinned = [f"pinned to CPU {effective['cpus']}"] if "cpus" in effective else []
    return ", ".join((threads, *pinned, *facts, preprocessing_label(result)))
