"""The options that limit what a network may cost, shared by `mbbench choose` and `mbbench fit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mbbench.cli.quantities import bytes_within_bounds, time_within_bounds
from mbbench.spec.bounds import BOUNDS

if TYPE_CHECKING:
    from mbbench.analysis.choose import Limits

MaxP99 = Annotated[
    str | None, typer.Option("--max-p99", metavar="TIME", help="Highest p99 latency allowed, e.g. 10ms.")
]
MinTop1 = Annotated[
    float | None, typer.Option("--min-top1", metavar="PERCENT", help="Lowest top-1 accuracy allowed, e.g. 60.")
]
MaxRss = Annotated[
    str | None,
    typer.Option("--max-rss", metavar="SIZE", help="Highest peak memory of the process allowed, e.g. 80MB."),
]
MaxAddedRss = Annotated[
    str | None,
    typer.Option(
        "--max-added-rss",
        metavar="SIZE",
        help="Highest memory allowed that the runtime and the network add, e.g. 40MB.",
    ),
]
MaxSize = Annotated[
    str | None, typer.Option("--max-size", metavar="SIZE", help="Largest artifact on disk allowed, e.g. 5MB.")
]


def parse_limits(
    max_p99: str | None,
    min_top1: float | None,
    max_rss: str | None,
    max_added_rss: str | None,
    max_size: str | None,
) -> Limits:
    """Return the limits in the units of `analysis.choose`. Raises `UsageError`."""
    from mbbench.analysis.choose import Limits

    if min_top1 is not None:
        BOUNDS["min_top1"].require(min_top1)
    return Limits(
        max_p99_ms=None if max_p99 is None else time_within_bounds("max_p99_s", max_p99) * 1e3,
        min_top1=None if min_top1 is None else min_top1 / 100,
        max_rss_bytes=None if max_rss is None else bytes_within_bounds("max_rss_gb", max_rss),
        max_added_rss_bytes=(None if max_added_rss is None else bytes_within_bounds("max_added_rss_gb", max_added_rss)),
        max_size_bytes=None if max_size is None else bytes_within_bounds("max_size_gb", max_size),
    )
