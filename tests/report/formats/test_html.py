import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

import mbbench.report.formats
from mbbench.errors import UsageError
from mbbench.report import selection
from mbbench.report.formats import html
from mbbench.report.sections import figures
from mbbench.result import Result
from mbbench.spec import ModelSpec

Make = Callable[..., Result]
HOSTILE = '</script><script>window.pwned = 1</script><img src=x onerror="window.pwned = 1">'
CSS = (Path(mbbench.report.formats.__file__).parent / "page.css").read_text()


def hostile(make: Make) -> list[Result]:
    """A result with hostile text in every field that holds text from outside."""
    result = make(backend=HOSTILE)
    assert result.data is not None
    machine, data = replace(result.machine, cpu=HOSTILE, os=HOSTILE), replace(result.data, name=HOSTILE)
    return [replace(result, machine=machine, data=data, versions={HOSTILE: HOSTILE})]


def test_rendering_is_deterministic(study: list[Result]) -> None:
    assert html.render(study) == html.render(study)


def test_the_records_in_a_page_equal_the_results(study: list[Result]) -> None:
    page = html.render(study)
    assert html.read_records(page, "page.html") == study
    assert html.writer_version(page) == "0.1.0"
    assert html.writer_version(html.render(study, "9.9")) == "9.9"


def test_a_file_that_is_not_a_report_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"x.html is not a report of mbbench; name a file that"):
        html.read_records("<html></html>", "x.html")
    for broken in ("AAAA", "%%%"):
        with pytest.raises(UsageError, match=r"the records in x.html cannot be read: .*; write the report again"):
            html.read_records(f'<script type="text/plain" id="records">{broken}</script>', "x.html")


def test_hostile_text_is_escaped(make_result: Make) -> None:
    page = html.render(hostile(make_result))
    assert "<img" not in page
    assert "window.pwned = 1</script>" not in page
    assert page.count("<script") == 5
    assert "&lt;/script&gt;&lt;script&gt;window.pwned" in page


def test_the_security_policy_allows_only_the_two_scripts_of_the_page(study: list[Result]) -> None:
    page = html.render(study)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    plotly = html.read_embedded(page, "plotly")
    hashes = [base64.b64encode(hashlib.sha256(code).digest()).decode() for code in (script.encode(), plotly)]
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}' 'sha256-{hashes[1]}';"
        " style-src 'unsafe-inline'; img-src data: blob:"
    )
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses and all(address.startswith(("#", "data:")) for address in addresses)


def test_every_plot_has_a_text_alternative_and_its_data(study: list[Result]) -> None:
    page = html.render(study)
    (data,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page)
    plots = [figure["id"] for figure in msgspec.json.decode(data)]
    assert plots == [
        "trade-off-0", "latency-plot", "memory-plot", "precision-plot", "roofline-0", "roofline-1", "cold-start-plot",
    ]  # fmt: skip
    labeled = re.findall(r'<div class="plot" id="([^"]*)" role="img" aria-label="([^"]+)"', page)
    assert [id for id, _ in labeled] == plots


def test_the_pareto_front_is_drawn_from_the_fastest_to_the_most_accurate(study: list[Result]) -> None:
    figure = figures.trade_off(
        "id", study[:4], selection.pareto_front(study[:4]), lambda result: result.cell.precision, "here"
    )
    line = figure.traces[-1]
    assert [round(x, 3) for x in line["x"]] == [0.335, 0.535, 0.611, 1.225]
    assert [round(y, 1) for y in line["y"]] == [90.8, 91.9, 92.5, 93.6]
    assert [trace["name"] for trace in figure.traces] == ["openvino fp32", "openvino int8", "Pareto front"]
    assert figure.alt == (
        "Top-1 against median latency of 4 cells. The Pareto front has 4 cells, from int8 (0.335 ms, 90.8 %) to fp32"
        " (1.22 ms, 93.6 %)."
    )


def test_each_phase_adds_to_the_memory_of_the_previous_one(study: list[Result]) -> None:
    figure = figures.memory("id", study[:1], lambda _: "cell")
    assert [(trace["name"], trace["x"]) for trace in figure.traces] == [
        ("import", [70.0]), ("load and compile", [50.0]), ("first inference", [1.0]), ("steady", [4.0]),
    ]  # fmt: skip


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_marks_contrast_with_the_page(theme: str) -> None:
    """WCAG 2.2 requires 4.5 to 1 for text and 3 to 1 for the marks of a plot."""
    start = CSS.index(":root {" if theme == "light" else ':root[data-theme="dark"]')
    colors = dict(re.findall(r"(--\w+): (#[0-9a-f]{6})", CSS[start : CSS.index("}", start)]))
    for name in ("--text", "--soft", "--accent"):
        for background in ("--page", "--raised"):
            assert contrast(colors[name], colors[background]) >= 4.5, (name, background)
    for mark in figures.COLORS:
        assert contrast(mark, colors["--page"]) >= 3, mark


def contrast(a: str, b: str) -> float:
    lighter, darker = sorted(map(_luminance, (a, b)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_predicted_cells_of_a_heat_map_are_hollow(make_result: Make) -> None:
    places = [(0.25, 96), (0.25, 224), (1.0, 96), (1.0, 224), (0.5, 160)]
    results = [
        make_result(ModelSpec(alpha=alpha, resolution=side, classes=10), scale=alpha * side / 100)
        for alpha, side in places
    ]
    page = html.render(results)
    assert len(re.findall(r'<td class="hollow" style="--shade: [\d.]+">≈[\d.]+</td>', page)) == 4
    assert len(re.findall(r'<td class="shaded" style="--shade: [\d.]+">', page)) == 5 + 5  # latency and top-1
    assert page.count("≈") == 4 + 1
    assert "hollow" not in re.sub(r"(?s)<style>.*?</style>", "", html.render(results[:4]))
