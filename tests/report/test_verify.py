"""A report of a real run, held against its records; and each way in which it could have been changed."""

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest

from mbbench import run
from mbbench.report import units, verify
from mbbench.report.formats import html
from mbbench.result import Result
from mbbench.spec import Cell, ModelSpec, RunSpec, Scenario, Settings


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    model = ModelSpec(alpha=0.25, resolution=32)
    cell = Cell(model=model, role="subject", weights="random", backend="openvino", device="")
    settings = Settings(
        min_samples=100, min_s=0.1, max_s=1.0, warmup_max_s=0.5, throughput_s=0.1,
        scenarios=get_args(Scenario), scenario_s=0.3,
    )  # fmt: skip
    spec = RunSpec(cells=(cell,), data="digits", images=32, settings=settings)
    return list(run.run(spec, tmp_path_factory.mktemp("verify") / "results.jsonl", lambda _: None))


def test_a_report_agrees_with_its_records(measured: list[Result]) -> None:
    found = verify.verify(html.render(measured), "it")
    assert found.faults == ()
    assert (found.records, found.lines > 100) == (1, True)
    layers = measured[0].layer_times
    assert layers is not None and found.figures > 3 * len(layers.layers)


def test_every_scenario_that_was_asked_for_is_told_or_has_a_reason(measured: list[Result]) -> None:
    served = [one.scenario for one in measured[0].measured.served]
    reasons = [name.removeprefix("served.") for name in measured[0].reasons if name.startswith("served.")]
    assert sorted(served + reasons) == sorted(get_args(Scenario))
    assert {"single-stream", "multi-stream", "offline"} <= set(served)


def test_a_late_query_less_is_found(measured: list[Result]) -> None:
    first, *rest = measured[0].measured.served
    wrong = replace(measured[0].measured, served=(replace(first, p90_ms=0.001), *rest))
    faults = verify.verify(html.render([replace(measured[0], measured=wrong)]), "it").faults
    assert any("served.single-stream.p90_ms is 0.001" in fault for fault in faults)


def test_a_number_changed_on_the_page_is_found(measured: list[Result]) -> None:
    latency = measured[0].measured.latency
    assert latency is not None
    page = html.render(measured)
    shown = f"{units.milliseconds(latency.median_ms)} an image"
    assert shown in page
    (fault,) = verify.verify(page.replace(shown, "0.001 ms an image"), "it").faults
    assert fault.startswith("the page says '0.25 MobileNet-32 on openvino: 0.001 ms an image")
    assert shown in fault


def test_a_row_taken_off_the_page_is_found(measured: list[Result]) -> None:
    page = html.render(measured)
    start = page.index('<tr><th scope="row">nearly as accurate')
    without = page[:start] + page[page.index("</tr>", start) + 5 :]
    (fault,) = verify.verify(without, "it").faults
    assert fault.startswith("the page says '' where the records give \"nearly as accurate")


def test_a_text_alternative_is_read_too(measured: list[Result]) -> None:
    page = html.render(measured)
    faults = verify.verify(
        page.replace('aria-label="Peak memory by phase', 'aria-label="No memory by phase'), "it"
    ).faults
    assert len(faults) == 1 and "No memory by phase" in faults[0]


def test_a_point_moved_in_a_plot_is_found(measured: list[Result]) -> None:
    page = html.render(measured)
    start = page.index('id="figures"')
    moved = page[:start] + page[start:].replace('"median":[0.0]', '"median":[1.0]', 1)
    assert moved != page
    assert verify.verify(moved, "it").faults == (
        "the page's scripts, styles or plots are not those that mbbench writes for these records",
    )


def test_a_page_of_another_version_says_so(measured: list[Result]) -> None:
    page = html.render(measured, "9.9")
    assert verify.verify(page, "it").faults == ()
    changed = page.replace("--heat: #2b7de9", "--heat: #ff0000", 1)
    assert verify.verify(changed, "it").faults == (
        "mbbench 9.9 wrote it: verify its scripts and plots with that version",
    )


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("latency.median_ms", lambda r: _with(r, latency=replace(r.measured.latency, median_ms=0.001))),
        ("latency.p90_ms", lambda r: _with(r, latency=replace(r.measured.latency, p90_ms=0.001))),
        ("throughput.images_per_s", lambda r: _with(r, throughput=replace(r.measured.throughput, images_per_s=1e6))),
        ("accuracy.agreement_ci95.low", lambda r: _with(r, accuracy=replace(r.measured.accuracy, agreement=0.5))),
        ("cost.mult_adds", lambda r: replace(r, cost=replace(r.cost, mult_adds=1))),
        ("executed.moves", lambda r: replace(r, executed=replace(r.executed, moves=99))),
        ("layer_times.other_ms", lambda r: replace(r, layer_times=replace(r.layer_times, other_ms=99.0))),
    ],
)
def test_a_record_whose_figures_do_not_follow_from_its_raw_parts_is_found(
    measured: list[Result], name: str, change: Callable[[Result], Result]
) -> None:
    """The page agrees with the record: it was made of it."""
    faults = verify.verify(html.render([change(measured[0])]), "it").faults
    assert any(fault.startswith(f"0.25 MobileNet-32 on openvino: {name} is ") for fault in faults), faults


def _with(result: Result, **fields: object) -> Result:
    return replace(result, measured=replace(result.measured, **fields))  # type: ignore[arg-type]


def test_what_older_records_do_not_tell_is_no_fault(measured: list[Result]) -> None:
    latency = measured[0].measured.latency
    assert latency is not None
    old = _with(measured[0], latency=replace(latency, imprecise=None, outliers=None, drift=None))
    assert verify.verify(html.render([old]), "it").faults == ()
