"""From the classes of a data set to the outputs of a network."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import msgspec

from mbbench import cache
from mbbench.data import Dataset
from mbbench.errors import UsageError, describe_invalid, list_first
from mbbench.models import imagenet
from mbbench.profile import expand_home
from mbbench.result import LabelsInfo, LabelSource
from mbbench.spec import content_key

_FORMAT = 'write a CSV file with lines like n01440764,0 or a JSON file like {"n01440764": 0}'


def map_labels(data: Dataset, outputs: int, file: str | None = None) -> Dataset:
    """Return `data` with its labels as numbers of a network's `outputs`, and `labeling`.

    - `file` (--labels) gives the output of every class.
    - A network of 1000 outputs has those of ImageNet, if all classes are ImageNet's by synset or name.
    - With as many outputs as classes, the classes are in the order of their names.
    - A network of 1001 outputs has one for the background first: each of 1000 classes is one output later.

    If none applies, or there are no labels, `data` is returned as it is. Raises `UsageError` if only some of the
    classes are ImageNet's, if they are not as many as the outputs, or if the file does not give them an output each.
    """
    if data.classes == 1:
        return data
    if file is not None:
        return _mapped(data, "file", _read_outputs(file, data, outputs))
    has_background = outputs == imagenet.CLASSES + 1
    indices = _imagenet_classes(data, outputs)
    if indices is not None:
        return _mapped(data, "imagenet", indices, background=has_background)
    if outputs == data.classes:
        return _mapped(data, "order", range(outputs))
    if has_background and data.classes == imagenet.CLASSES:
        return _mapped(data, "order", range(data.classes), background=True)
    return data


def _mapped(data: Dataset, source: LabelSource, classes: Sequence[int], *, background: bool = False) -> Dataset:
    """Return `data` with label i as `classes[i]`, or as `classes[i] + 1` after an output for the background."""
    import numpy as np

    outputs = [number + background for number in classes]
    names = {} if source == "imagenet" else dict(zip(outputs, data.class_names, strict=False))
    if outputs == list(range(data.classes)):
        return replace(data, labeling=LabelsInfo(source=source, names=names))
    key = content_key(outputs)
    path = data.labels.with_name(f"{content_key(data.fingerprint, key)}.labels.npy")
    _, labels = data.arrays()
    with cache.atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.array(outputs, np.int64)[labels])
    info = LabelsInfo(source=source, names=names, background=background, key=key)
    return replace(data, labels=path, labeling=info)


def statement(data: Dataset) -> str | None:
    """Return what was done to the labels, in a sentence; None if class i is output i."""
    info, count = data.labeling, data.classes
    if info is None or not info.key:
        return None
    background = "; output 0 of the network's 1001 is the background, so class i is output i + 1"
    match info.source:
        case "imagenet":
            text = f"{data.name}: {count} of {count} folders are ImageNet classes"
        case "file":
            text = f"{data.name}: the file of --labels has an output for {count} of {count} classes"
        case "order":
            text = f"{data.name}: {count} classes"
    return text + background * info.background


def _imagenet_classes(data: Dataset, outputs: int) -> list[int] | None:
    """Return ImageNet's class of every class of the data, or None if the network or the data has others."""
    if outputs not in (imagenet.CLASSES, imagenet.CLASSES + 1) or not data.class_names:
        return None
    indices = {name: imagenet.index_of(name) for name in data.class_names}
    unknown = [name for name, index in indices.items() if index is None]
    if not unknown:
        return [index for index in indices.values() if index is not None]
    if len(unknown) < len(indices) and data.classes not in (outputs, imagenet.CLASSES):
        known = len(indices) - len(unknown)
        raise UsageError(
            f"{known} of the {len(indices)} folders of {data.name} are ImageNet classes, but not {list_first(unknown)}",
            "name these by their synsets (n01440764), remove them, or give --labels FILE",
        )
    return None


def read_pairs(file: str) -> list[tuple[str, int]]:
    """Return the folders and their outputs in a file of --labels. Raises `UsageError`."""
    path = expand_home(file)
    try:
        return _read_json(path) if path.suffix.lower() == ".json" else _read_csv(path)
    except OSError as error:
        raise UsageError(
            f"cannot read {path} ({error.strerror or error})", "give a readable file of --labels"
        ) from error
    except (msgspec.MsgspecError, ValueError, RecursionError, csv.Error) as error:
        raise UsageError(f"{path} does not map folders to outputs ({describe_invalid(error)})", _FORMAT) from error


def _read_outputs(file: str, data: Dataset, outputs: int) -> list[int]:
    """Return the output that the file gives for every class of the data. Raises `UsageError`."""
    pairs, path = read_pairs(file), expand_home(file)
    by_name: dict[str, int] = {}
    for name, output in pairs:
        if by_name.setdefault(name, output) != output:
            raise UsageError(f"{path} has two outputs for {name}: {by_name[name]} and {output}", "remove one")
        if not 0 <= output < outputs:
            raise UsageError(
                f"an output in {path} is not 0 to {outputs - 1}: {output} ({name})",
                "number the network's outputs from 0",
            )
    if not data.class_names:
        raise UsageError(f"{data.name} has no folders to map with --labels", "leave out --labels")
    missing = [name for name in data.class_names if name not in by_name]
    if missing:
        raise UsageError(f"{path} has no output for {list_first(missing)} of {data.name}", "add a line for each folder")
    return [by_name[name] for name in data.class_names]


def _read_json(path: Path) -> list[tuple[str, int]]:
    return list(msgspec.json.decode(cache.read_small(path), type=dict[str, int]).items())


def _read_csv(path: Path) -> list[tuple[str, int]]:
    """Return the pairs in a CSV file, whose first line may be a header. Raises `ValueError`."""
    text = cache.read_small(path).decode("utf-8-sig")
    rows = [row for row in csv.reader(StringIO(text, newline="")) if row]
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise ValueError(f"row {number} has {len(row)} fields instead of 2")
    if rows and not rows[0][1].strip().isdecimal():
        rows = rows[1:]
    return [(name.strip(), int(output)) for name, output in rows]
