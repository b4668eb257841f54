"""Verification of a report of a real run, intact and after each kind of manipulation."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from mbbench import run
from mbbench.measure.scenarios import poisson_arrivals, scenario_figures
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
    verification = verify.verify(html.render(measured), "page.html")
    assert verification.faults == ()
    assert (verification.records, verification.lines > 100) == (1, True)
    layers = measured[0].layer_times
    assert layers is not None and verification.figures > 3 * len(layers.layers)


def test_every_requested_scenario_has_a_result_or_a_reason(measured: list[Result]) -> None:
    served = [result.scenario for result in measured[0].measured.served]
    reasons = [name.removeprefix("served.") for name in measured[0].reasons if name.startswith("served.")]
    assert sorted(served + reasons) == sorted(get_args(Scenario))
    assert {"single-stream", "multi-stream", "offline"} <= set(served)


def test_a_scenario_latency_that_does_not_match_its_samples_is_detected(measured: list[Result]) -> None:
    first, *rest = measured[0].measured.served
    changed = replace(measured[0].measured, served=(replace(first, p90_ms=0.001), *rest))
    faults = verify.verify(html.render([replace(measured[0], measured=changed)]), "page.html").faults
    assert any("served.single-stream.p90_ms is 0.001" in fault for fault in faults)


def test_a_changed_number_on_the_page_is_detected(measured: list[Result]) -> None:
    latency = measured[0].measured.latency
    assert latency is not None
    page = html.render(measured)
    shown = f"{units.milliseconds(latency.median_ms)} per image"
    assert shown in page
    (fault,) = verify.verify(page.replace(shown, "0.001 ms per image"), "page.html").faults
    assert fault.startswith("the page shows '0.25 MobileNet-32 on openvino: 0.001 ms per image")
    assert shown in fault


def test_a_row_removed_from_the_page_is_detected(measured: list[Result]) -> None:
    page = html.render(measured)
    start = page.index('<tr><th scope="row">0.25 MobileNet-32')
    without = page[:start] + page[page.index("</tr>", start) + 5 :]
    (fault,) = verify.verify(without, "page.html").faults
    assert fault.startswith("the page shows '', its records give '0.25 MobileNet-32 on openvino")


def test_a_changed_text_alternative_is_detected(measured: list[Result]) -> None:
    page = html.render(measured)
    faults = verify.verify(
        page.replace('aria-label="Peak memory by phase', 'aria-label="No memory by phase'), "page.html"
    ).faults
    assert len(faults) == 1 and "No memory by phase" in faults[0]


def test_a_moved_point_in_a_plot_is_detected(measured: list[Result]) -> None:
    page = html.render(measured)
    start = page.index('id="figures"')
    moved = page[:start] + page[start:].replace('"median":[0.0]', '"median":[1.0]', 1)
    assert moved != page
    assert verify.verify(moved, "page.html").faults == (
        "the page's scripts, styles or plots differ from those that mbbench writes for these records",
    )


def test_the_fault_names_the_version_if_another_one_wrote_the_page(measured: list[Result]) -> None:
    page = html.render(measured, "9.9")
    assert verify.verify(page, "page.html").faults == ()
    changed = page.replace("--heat: #2b7de9", "--heat: #ff0000", 1)
    assert verify.verify(changed, "page.html").faults == (
        "the page was written by mbbench 9.9: verify its scripts and plots with that version",
    )


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("latency.median_ms", lambda r: _with(r, latency=replace(r.measured.latency, median_ms=0.001))),
        ("latency.p90_ms", lambda r: _with(r, latency=replace(r.measured.latency, p90_ms=0.001))),
        ("throughput.images_per_s", lambda r: _with(r, throughput=replace(r.measured.throughput, images_per_s=1e6))),
        (
            "throughputs.batch_16.images_per_s",
            lambda r: _with(
                r,
                throughputs=(*r.measured.throughputs[:-1], replace(r.measured.throughput, batch=16, images_per_s=1e6)),
            ),
        ),
        (
            "throughput.batch",
            lambda r: _with(
                r, throughputs=r.measured.throughputs[:1], throughput=replace(r.measured.throughput, batch=99)
            ),
        ),
        ("accuracy.agreement_ci95.low", lambda r: _with(r, accuracy=replace(r.measured.accuracy, agreement=0.5))),
        ("cost.mult_adds", lambda r: replace(r, cost=replace(r.cost, mult_adds=1))),
        ("executed.moves", lambda r: replace(r, executed=replace(r.executed, moves=99))),
        ("layer_times.other_ms", lambda r: replace(r, layer_times=replace(r.layer_times, other_ms=99.0))),
    ],
)
def test_a_figure_that_does_not_follow_from_raw_data_is_detected(
    measured: list[Result], name: str, change: Callable[[Result], Result]
) -> None:
    """The page alone would pass: it was rendered from the changed record."""
    faults = verify.verify(html.render([change(measured[0])]), "page.html").faults
    assert any(fault.startswith(f"0.25 MobileNet-32 on openvino: {name} is ") for fault in faults), faults


def test_the_time_of_a_server_follows_from_its_arrivals_and_latencies(measured: list[Result]) -> None:
    latencies_ns = [1_000_000] * 700
    due_ns = poisson_arrivals(200.0, 700)
    figures = scenario_figures("server", latencies_ns, batch=1, seconds=(due_ns[-1] + 1_000_000) / 1e9, bound_ms=15.0)
    server = replace(figures, arrivals_per_s=200.0, effective={"streams": "2"})
    intact = _with(measured[0], served=(server,))
    assert verify.verify(html.render([intact]), "page.html").faults == ()
    seconds = 700 / 200.0  # the rate of the arrivals, which is not that of the completions
    forged = _with(measured[0], served=(replace(server, seconds=seconds, images_per_s=200.0),))
    faults = verify.verify(html.render([forged]), "page.html").faults
    label = "0.25 MobileNet-32 on openvino: served.server"
    assert [fault.split(" is ")[0] for fault in faults] == [
        f"{label}.images_per_s", f"{label}.seconds", f"{label}.images_per_s",
    ]  # fmt: skip


def _with(result: Result, **fields: object) -> Result:
    return replace(result, measured=replace(result.measured, **fields))  # type: ignore[arg-type]


def test_fields_that_older_records_lack_are_not_faults(measured: list[Result]) -> None:
    latency = measured[0].measured.latency
    assert latency is not None
    old = _with(measured[0], latency=replace(latency, imprecise=None, outliers=None, drift=None))
    assert verify.verify(html.render([old]), "page.html").faults == ()


@pytest.mark.slow
def test_the_reference_report_agrees_with_its_records() -> None:
    """A change of wording or figures must regenerate it: see CONTRIBUTING.md."""
    page = Path(__file__).parents[2] / "reports" / "reference" / "report.html"
    assert verify.verify(page.read_text(), page.name).faults == ()
