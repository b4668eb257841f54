"""The outcome of `mbbench fit` as text and as data."""

import math
from collections.abc import Callable

import pytest

from mbbench.analysis.choose import Limits
from mbbench.fit.law import Timing
from mbbench.fit.measurement import Measurement
from mbbench.fit.search import Fit, search
from mbbench.models.cost import cost_of
from mbbench.report.formats import terminal
from mbbench.report.sections.fit import fit_document, record
from mbbench.result import Failure
from mbbench.spec import Cell, ModelSpec, Precision

MODELS = [ModelSpec(alpha=k / 8, resolution=side, classes=10) for k in range(1, 9) for side in (96, 128, 160, 192, 224)]
LIMITS = Limits(max_p99_ms=1.5)


def measure(model: ModelSpec) -> Measurement:
    """Measure on a chip of 120 million Mult-Adds a millisecond, whose p99 is 10 % above the median."""
    times = {layer.name: layer.mult_adds / 1.2e8 + 1e-3 for layer in cost_of(model).layers}
    median_ms = math.fsum(times.values())
    size = 4 * sum(layer.weights for layer in cost_of(model).layers) + 2e4
    return Measurement(
        timing=Timing(model, median_ms, 0.0, times), p99_ms=1.1 * median_ms, size_bytes=size, rss_bytes=9e7 + size,
        added_rss_bytes=5e7 + size, id="ab",
    )  # fmt: skip


def cell(backend: str, precision: Precision = "fp32") -> Cell:
    return Cell(model=MODELS[0], role="subject", weights="random", backend=backend, device="", precision=precision)


@pytest.fixture
def fits() -> dict[Cell, Fit]:
    """The same chip twice, and a backend that cannot start."""
    failure = Failure(cause="no driver was found", remedy="install it", exit_code=6)
    return {
        cell("openvino"): search(MODELS, LIMITS, measure, max_cells=9),
        cell("openvino", "int8"): search(MODELS, LIMITS, measure, precision="int8", max_cells=9),
        cell("tensorrt"): Fit((), (), None, None, 0, failure),
    }


def test_the_terminal_shows_the_border_in_80_columns(fits: dict[Cell, Fit], golden: Callable[[str, str], None]) -> None:
    text = terminal.render(fit_document(fits, LIMITS), width=80, color=False)
    assert max(map(len, text.splitlines())) <= 80
    golden(text, "fit.txt")


def test_limited_costs_replace_the_bar() -> None:
    limits = Limits(max_p99_ms=1.5, max_size_bytes=2e6, max_rss_bytes=9.9e7, max_added_rss_bytes=1e9)
    document = fit_document({cell("openvino"): search(MODELS, limits, measure, max_cells=9)}, limits)
    (table,) = document.tables
    assert table.columns == ("Res", "Alpha", "Size, MB", "RSS, MB", "Added, MB", "p99, ms [95 %]", "Top-1", "Known")
    assert [row[:5] for row in table.rows if row[0] == "128"] == [("128", "0.375", "1.87", "91.9", "51.9")]
    text = terminal.render(document, width=80, color=False)
    assert max(map(len, text.splitlines())) <= 80


def test_nothing_within_the_limits_is_said(fits: dict[Cell, Fit]) -> None:
    limits = Limits(max_p99_ms=1e-3)
    fit = search(MODELS, limits, measure, max_cells=9)
    document = fit_document({cell("openvino"): fit}, limits)
    assert document.headline == "No network is within the limits."
    assert document.tables[0].rows[0] == ("224", "—", "—", "—", "—", "—")


def test_the_record_has_every_network_and_says_what_was_measured(fits: dict[Cell, Fit]) -> None:
    first, second, failed = record(fits)
    assert (first["best"], second["best"], failed["best"]) == (True, False, False)
    cells = first["cells"]
    assert isinstance(cells, list) and len(cells) == len(MODELS)
    measured = [entry for entry in cells if entry["known"] == "measured"]
    assert len(measured) == first["measured"]
    assert all(entry["id"] == "ab" and entry["p99_ci95_ms"] is None for entry in measured)
    assert all(entry["id"] is None and entry["p99_ci95_ms"] is not None for entry in cells if entry not in measured)
    assert (failed["failure"], failed["cells"], failed["pick"]) == (fits[cell("tensorrt")].failure, [], None)
