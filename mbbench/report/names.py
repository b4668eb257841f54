"""Names of results in titles and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import PurePath

from mbbench.models import default_preprocessing, imagenet
from mbbench.report.selection import images_label
from mbbench.result import LabelsInfo, Result

Name = Callable[[Result], str]
_Part = Callable[[Result], str]
_NORMALIZATIONS = {  # mean and std -> name
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)): "pixels from -1 to 1",
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)): "ImageNet's mean and std",
}


def backend_label(result: Result) -> str:
    """Return the backend, with the device unless it is the CPU: `torch cuda:0`."""
    return f"{result.cell.backend} {_device(result)}".rstrip()


def runtime_label(result: Result) -> str:
    """Return backend, version, device unless it is the CPU, and precision unless fp32: `openvino 2026.4.1 int8`."""
    runtime = result.cell.backend.split("-")[0]  # of `torch-eager`; LiteRT's distribution is `ai-edge-litert`
    version = next((version for name, version in result.versions.items() if runtime in name), "")
    precision = "" if result.cell.precision == "fp32" else result.cell.precision
    device = "" if result.setup.on_cpu else result.cell.device
    return " ".join(part for part in (result.cell.backend, version, device, precision) if part)


def preprocessing_label(result: Result) -> str:
    """Return how pixels became inputs, and what else of the preprocessing is not the default of the network's family.

    `pixels from -1 to 1`, or `mean 0,0,0, std 1,1,1, crop 1, bicubic, BGR`.
    """
    usual = default_preprocessing(result.cell.model.family)
    chosen = result.preprocessing or usual
    mean, std = (",".join(f"{number:g}" for number in triple) for triple in (chosen.mean, chosen.std))
    parts = [_NORMALIZATIONS.get((chosen.mean, chosen.std), f"mean {mean}, std {std}")]
    parts += [] if chosen.crop is None or chosen.crop == usual.crop else [f"crop {chosen.crop:g}"]
    parts += [] if chosen.interpolation == usual.interpolation else [chosen.interpolation]
    parts += [] if chosen.channels == usual.channels else [chosen.channels.upper()]
    return ", ".join(parts)


def labels_label(result: Result) -> str:
    """Return how the data's classes became the network's outputs; empty if class i is output i."""
    labels, data = result.labels, result.data
    if labels is None or data is None or not labels.key:
        return ""
    text = {"order": "", "imagenet": f"{data.classes} of ImageNet's 1000 classes", "file": "classes mapped by --labels"}
    background = "one output later, after the background" if labels.background else ""
    return ", ".join(part for part in (text[labels.source], background) if part)


def class_label(output: int, labels: LabelsInfo | None) -> str:
    """Return the name of the class that an output stands for: `class shirt`, or `class 3` if it has none."""
    if labels is not None and labels.source == "imagenet":
        return f"class {imagenet.name_of(output - labels.background)} (output {output})"  # a few share their names
    return f"class {output if labels is None else labels.names.get(output, output)}"


def namer(results: Sequence[Result]) -> Name:
    """Return a function that names each of `results` by what distinguishes it from the others.

    That is network, precision and backend, and of device, threads, batch size, test images, weights, preprocessing and
    machine whatever differs: `0.5 MobileNet-128 in int8 on openvino, batch 8`.
    """
    candidates = (_device, _threads, _batch, _machine_namer(results))
    shown = [_cell, *(part for part in candidates if _differs(results, part))]
    for part in (images_label, _weights, preprocessing_label):
        names = Counter(_join(result, shown) for result in results)
        ambiguous = [result for result in results if names[_join(result, shown)] > 1]
        if _differs(ambiguous, part):
            shown.append(part)
    return lambda result: _join(result, shown)


def _join(result: Result, parts: Sequence[_Part]) -> str:
    return ", ".join(text for part in parts if (text := part(result)))


def _differs(results: Sequence[Result], part: _Part) -> bool:
    return len({part(result) for result in results}) > 1


def _cell(result: Result) -> str:
    return result.cell.label


def _device(result: Result) -> str:
    return "" if result.setup.on_cpu else result.cell.device


def _threads(result: Result) -> str:
    threads = result.settings.threads
    return f"{threads} thread{'s' * (threads > 1)}"


def _batch(result: Result) -> str:
    return f"batch {result.settings.batch}"


def _machine_namer(results: Sequence[Result]) -> _Part:
    """Return a function that names a result's machine: its CPU, with the machine's id if several have that CPU."""
    cpus = Counter(cpu for _, cpu in {(result.machine.id, result.machine.cpu) for result in results})

    def machine(result: Result) -> str:
        cpu = result.machine.cpu
        return f"{cpu} ({result.machine.id})" if cpus[cpu] > 1 else cpu

    return machine


def _weights(result: Result) -> str:
    weights = result.cell.weights
    return "trained" if weights is None else f"weights {PurePath(weights).name}"
