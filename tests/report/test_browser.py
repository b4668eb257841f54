"""The report in a real browser. Needs Chromium (`apt install chromium`); it is driven by Playwright."""

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


class Opened:
    """A page, and what it said and asked for."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def drawn(self) -> None:
        self.page.wait_for_selector("html[data-drawn=true]", timeout=120_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    contexts = []

    def open_(results: list[Result], **options: Any) -> Opened:
        path = tmp_path / "report.html"
        path.write_text(html.render(results))
        context = browser.new_context(**options)
        contexts.append(context)
        found = Opened(context.new_page())
        found.page.goto(path.as_uri())
        return found

    yield open_
    for context in contexts:
        context.close()


def test_it_opens_from_a_file_draws_every_plot_and_asks_for_nothing(
    study: list[Result], opened: Callable[..., Opened]
) -> None:
    it = opened(study)
    it.drawn()
    assert it.said == []
    assert [Path(address).name for address in it.asked] == ["report.html"]
    assert it.page.locator(".plot svg.main-svg").count() >= it.page.locator(".plot").count() == 7


def test_a_column_sorts_by_its_numbers_both_ways_and_by_keyboard(
    study: list[Result], opened: Callable[..., Opened]
) -> None:
    it = opened(study)
    header = it.page.locator("#cells table").first.locator("thead button", has_text="Median")
    header.click()
    medians = [float(text.split()[0]) for text in column(it, "Speed", 1) if text != "—"]
    assert medians == sorted(medians) and len(medians) == 10
    assert column(it, "Speed", 1)[-1] == "—"
    header.press("Enter")
    assert [float(text.split()[0]) for text in column(it, "Speed", 1) if text != "—"] == medians[::-1]
    assert column(it, "Speed", 1)[-1] == "—"
    assert header.locator("xpath=..").get_attribute("aria-sort") == "descending"


def test_units_do_not_confuse_the_order(make_result: Make, opened: Callable[..., Opened]) -> None:
    slow = make_result(backend="slow")
    assert slow.measured.cold is not None
    cold = replace(slow.measured.cold, compile_s=1.5)
    it = opened([replace(slow, measured=replace(slow.measured, cold=cold)), make_result(backend="fast")])
    it.page.locator("#cold-start thead button", has_text="Compile").click()
    assert column(it, "From a fresh process to the first answer", 3) == ["80.0 ms", "1.50 s"]


def test_rows_are_filtered_by_every_word(make_result: Make, opened: Callable[..., Opened]) -> None:
    it = opened([make_result(backend=f"runtime{number}") for number in range(30)])
    it.page.locator("#cells .filter input").fill("runtime1 MOBILENET")
    names = column(it, "Speed", 0)
    assert len(names) == 11 and all("runtime1" in name for name in names)
    assert it.page.locator("#cells .filter output").text_content() == "22 of 60 rows"
    it.page.locator("#cells .filter input").fill("")
    assert len(column(it, "Speed", 0)) == 30


def test_hovering_tells_what_a_point_is(study: list[Result], opened: Callable[..., Opened]) -> None:
    it = opened(study)
    it.drawn()
    it.page.locator("#trade-off-0").scroll_into_view_if_needed()
    it.page.locator("#trade-off-0 .scatterlayer .point").first.hover(force=True)
    label = it.page.locator("#trade-off-0 .hoverlayer .hovertext")
    label.wait_for()
    assert "0.25 MobileNet-128 on openvino" in label.first.text_content()


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_sticks_out_of_the_page(study: list[Result], opened: Callable[..., Opened], width: int) -> None:
    it = opened(study, viewport={"width": width, "height": 740})
    it.drawn()
    assert it.page.evaluate("document.documentElement.scrollWidth") == width


def test_the_theme_follows_the_system_and_can_be_changed(study: list[Result], opened: Callable[..., Opened]) -> None:
    it = opened(study, color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    assert it.page.evaluate(background) == "rgb(18, 22, 28)"
    it.page.get_by_role("button", name="Light").click()
    assert it.page.evaluate(background) == "rgb(255, 255, 255)"


def test_printing_shows_all_rows_and_no_controls(study: list[Result], opened: Callable[..., Opened]) -> None:
    it = opened(study, color_scheme="dark")
    it.drawn()
    it.page.emulate_media(media="print")
    assert not it.page.locator("nav").is_visible()
    assert not it.page.locator("#theme").is_visible()
    assert it.page.locator(".scroll").first.evaluate("box => getComputedStyle(box).maxHeight") == "none"


def test_the_records_can_be_saved(study: list[Result], opened: Callable[..., Opened], tmp_path: Path) -> None:
    from mbbench import store

    it = opened(study)
    with it.page.expect_download() as download:
        it.page.get_by_role("button", name="Save the records").click()
    download.value.save_as(tmp_path / "saved.jsonl")
    assert store.read(tmp_path / "saved.jsonl") == study


def test_a_hostile_name_runs_no_script(make_result: Make, opened: Callable[..., Opened]) -> None:
    it = opened(hostile(make_result))
    it.drawn()
    assert it.page.evaluate("window.pwned") is None
    assert it.page.locator("img").count() == 0


def column(it: Opened, caption: str, number: int) -> list[str]:
    """What a column of a table shows, of the rows that are not filtered out."""
    cells: list[str] = it.page.evaluate(
        """([caption, number]) => {
          const table = [...document.querySelectorAll("table")].find((t) => t.caption.textContent === caption);
          return [...table.tBodies[0].rows].filter((r) => !r.hidden).map((r) => r.cells[number].textContent);
        }""",
        [caption, number],
    )
    return cells
