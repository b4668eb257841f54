"""The options about a checkpoint's inputs and outputs: preprocessing, and which output stands for which class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from mbbench.errors import UsageError
from mbbench.spec import Channels, Interpolation, Triple

_USUAL = "as the checkpoint's"

Mean = Annotated[
    str | None,
    typer.Option("--mean", metavar="R,G,B", help="Mean of each channel, for pixels from 0 to 1.", show_default=_USUAL),
]
Std = Annotated[
    str | None,
    typer.Option("--std", metavar="R,G,B", help="Standard deviation of each channel, likewise.", show_default=_USUAL),
]
Crop = Annotated[
    float | None,
    typer.Option(
        "--crop",
        metavar="SHARE",
        help="Share of the resized image's shorter side that is cut out of its center.",
        show_default="0.875 for files, 1 otherwise",
    ),
]
Resizing = Annotated[
    Interpolation | None,
    typer.Option(
        "--interpolation",
        metavar="NAME",
        help="Interpolation when resizing: nearest, bilinear, bicubic or lanczos.",
        show_default="bilinear",
    ),
]
Order = Annotated[
    Channels | None,
    typer.Option("--channels", metavar="NAME", help="Order of the input's channels: rgb or bgr.", show_default="rgb"),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="CSV or JSON file that maps DATA's folders to the outputs of --weights: folder,index.",
        show_default="by names",
    ),
]
Logits = Annotated[
    str | None,
    typer.Option("--logits", metavar="NAME", help="Output of an ONNX file that has several.", show_default="the only"),
]


def parse_triple(option: str, text: str) -> Triple:
    """Return the three numbers in a text such as `0.485,0.456,0.406`. Raises `UsageError`."""
    try:
        red, green, blue = map(float, text.split(","))
    except ValueError:
        raise UsageError(
            f"{option} is not three numbers: {text}", f"write it like {option} 0.485,0.456,0.406"
        ) from None
    return red, green, blue


def _same(value: Any) -> Any:
    return value


# Name of the option and of the profile's field -> its annotation and conversion.
OPTIONS: Mapping[str, tuple[Any, Callable[[Any], Any]]] = {
    "mean": (Mean, lambda text: parse_triple("--mean", text)),
    "std": (Std, lambda text: parse_triple("--std", text)),
    "crop": (Crop, _same),
    "interpolation": (Resizing, _same),
    "channels": (Order, _same),
    "labels": (Labels, _same),
    "logits": (Logits, _same),
}


def to_fields(**values: Any) -> dict[str, Any]:
    """Return the fields of a profile from the values of `OPTIONS`; None stays None. Raises `UsageError`."""
    return {name: None if value is None else OPTIONS[name][1](value) for name, value in values.items()}
