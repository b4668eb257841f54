"""The HTML report in Chromium, driven by Playwright; skipped unless Chromium is installed (`apt install chromium`)."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mbbench.report.formats import html
from mbbench.result import Result

from .formats.test_html import hostile

Make = Callable[..., Result]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


class OpenPage:
    """A page in the browser, with its console messages, errors and requests."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.messages: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.messages.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def wait_for_plots(self) -> None:
        self.page.wait_for_selector("html[data-drawn=true]", timeout=120_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def open_report(browser: Any, tmp_path: Path) -> Iterator[Callable[..., OpenPage]]:
    contexts = []

    def open_(results: list[Result], **options: Any) -> OpenPage:
        path = tmp_path / "report.html"
        path.write_text(html.render(results))
        context = browser.new_context(**options)
        contexts.append(context)
        report = OpenPage(context.new_page())
        report.page.goto(path.as_uri())
        return report

    yield open_
    for context in contexts:
        context.close()


def test_the_report_opens_from_a_file_draws_every_plot_and_requests_nothing(
    study: list[Result], open_report: Callable[..., OpenPage]
) -> None:
    report = open_report(study)
    report.wait_for_plots()
    assert report.messages == []
    assert [Path(address).name for address in report.requests] == ["report.html"]
    assert report.page.locator(".plot svg.main-svg").count() >= report.page.locator(".plot").count() == 7


def test_a_column_sorts_numerically_in_both_directions_and_by_keyboard(
    study: list[Result], open_report: Callable[..., OpenPage]
) -> None:
    report = open_report(study)
    header = report.page.locator("#cells table").first.locator("thead button", has_text="Median")
    header.click()
    medians = [float(text.split()[0]) for text in column(report, "Speed", 1) if text != "—"]
    assert medians == sorted(medians) and len(medians) == 10
    assert column(report, "Speed", 1)[-1] == "—"
    header.press("Enter")
    assert [float(text.split()[0]) for text in column(report, "Speed", 1) if text != "—"] == medians[::-1]
    assert column(report, "Speed", 1)[-1] == "—"
    assert header.locator("xpath=..").get_attribute("aria-sort") == "descending"


def test_sorting_respects_units(make_result: Make, open_report: Callable[..., OpenPage]) -> None:
    slow = make_result(backend="slow")
    assert slow.measured.cold is not None
    cold = replace(slow.measured.cold, compile_s=1.5)
    report = open_report([replace(slow, measured=replace(slow.measured, cold=cold)), make_result(backend="fast")])
    report.page.locator("#cold-start thead button", has_text="Compile").click()
    assert column(report, "From import to the first inference in a fresh process", 3) == ["80.0 ms", "1.50 s"]


def test_the_filter_requires_every_word(make_result: Make, open_report: Callable[..., OpenPage]) -> None:
    report = open_report([make_result(backend=f"runtime{number}") for number in range(30)])
    report.page.locator("#cells .filter input").fill("runtime1 MOBILENET")
    names = column(report, "Speed", 0)
    assert len(names) == 11 and all("runtime1" in name for name in names)
    assert report.page.locator("#cells .filter output").text_content() == "22 of 60 rows"
    report.page.locator("#cells .filter input").fill("")
    assert len(column(report, "Speed", 0)) == 30


def test_hovering_shows_the_cell_of_a_point(study: list[Result], open_report: Callable[..., OpenPage]) -> None:
    report = open_report(study)
    report.wait_for_plots()
    report.page.locator("#trade-off-0").scroll_into_view_if_needed()
    report.page.locator("#trade-off-0 .scatterlayer .point").first.hover(force=True)
    label = report.page.locator("#trade-off-0 .hoverlayer .hovertext")
    label.wait_for()
    assert "0.25 MobileNet-128 on openvino" in label.first.text_content()


@pytest.mark.parametrize("width", [1280, 700])
def test_the_toolbar_of_a_plot_covers_neither_its_legend_nor_its_caption(
    width: int, study: list[Result], open_report: Callable[..., OpenPage]
) -> None:
    report = open_report(study, viewport={"width": width, "height": 900})
    report.wait_for_plots()
    covered = report.page.evaluate("""() => [...document.querySelectorAll("figure")].flatMap((figure) => {
        const bar = figure.querySelector(".modebar").getBoundingClientRect();
        const caption = document.createRange();
        caption.selectNodeContents(figure.querySelector("figcaption"));
        return [caption, ...figure.querySelectorAll(".legendtext")].filter((text) => {
            const box = text.getBoundingClientRect();
            return box.right > bar.left && box.left < bar.right && box.bottom > bar.top && box.top < bar.bottom;
        }).map((text) => text.toString());
    })""")
    assert covered == []
    assert report.page.locator(".modebar").count() == report.page.locator(".plot").count() > 0


@pytest.mark.parametrize("width", [360, 1280])
def test_no_content_is_wider_than_the_page(
    study: list[Result], open_report: Callable[..., OpenPage], width: int
) -> None:
    report = open_report(study, viewport={"width": width, "height": 740})
    report.wait_for_plots()
    assert report.page.evaluate("document.documentElement.scrollWidth") == width


def test_the_theme_follows_the_system_and_can_be_switched(
    study: list[Result], open_report: Callable[..., OpenPage]
) -> None:
    report = open_report(study, color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    assert report.page.evaluate(background) == "rgb(18, 22, 28)"
    report.page.get_by_role("button", name="Light").click()
    assert report.page.evaluate(background) == "rgb(255, 255, 255)"


def test_a_printed_page_shows_all_rows_and_no_controls(
    study: list[Result], open_report: Callable[..., OpenPage]
) -> None:
    report = open_report(study, color_scheme="dark")
    report.wait_for_plots()
    report.page.emulate_media(media="print")
    assert not report.page.locator("nav").is_visible()
    assert not report.page.locator("#theme").is_visible()
    assert report.page.locator(".scroll").first.evaluate("box => getComputedStyle(box).maxHeight") == "none"


def test_the_saved_records_equal_the_results(
    study: list[Result], open_report: Callable[..., OpenPage], tmp_path: Path
) -> None:
    from mbbench import store

    report = open_report(study)
    report.wait_for_plots()
    report.page.evaluate("() => void (URL.revokeObjectURL = () => (window.revoked = true))")
    with report.page.expect_download(timeout=120_000) as download:
        report.page.get_by_role("button", name="Save the records").click()
    download.value.save_as(tmp_path / "saved.jsonl")
    assert store.read(tmp_path / "saved.jsonl") == study
    assert report.page.evaluate("window.revoked") is None, "a slow browser would lose the address before it opens it"


def test_a_hostile_name_runs_no_script(make_result: Make, open_report: Callable[..., OpenPage]) -> None:
    report = open_report(hostile(make_result))
    report.wait_for_plots()
    assert report.page.evaluate("window.pwned") is None
    assert report.page.locator("img").count() == 0


def column(report: OpenPage, caption: str, number: int) -> list[str]:
    """Return the text of a column, without the rows that the filter hides."""
    cells: list[str] = report.page.evaluate(
        """([caption, number]) => {
          const table = [...document.querySelectorAll("table")].find((t) => t.caption.textContent === caption);
          return [...table.tBodies[0].rows].filter((r) => !r.hidden).map((r) => r.cells[number].textContent);
        }""",
        [caption, number],
    )
    return cells
