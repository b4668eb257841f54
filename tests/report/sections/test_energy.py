"""Energy in every format if it was measured; the golden files show its absence otherwise."""

from collections.abc import Callable
from dataclasses import replace

from mbbench.measure import energy
from mbbench.report.formats import csv, html, markdown, terminal
from mbbench.report.page import build_page
from mbbench.report.summary import summary_document
from mbbench.report.verify import recompute, verify
from mbbench.result import Result, Stretch
from mbbench.spec import ModelSpec

Make = Callable[..., Result]
VGG16 = ModelSpec(family="vgg16", resolution=128, classes=10)
REASON = "the kernel shows no RAPL counter, as in most virtual machines"


def with_energy(result: Result, images: int = 1000) -> Result:
    """Return `result` with ten stretches of 1 s: 10 W idle, 20 W busy, and 1 % more in every other stretch."""
    stretches = [
        Stretch(
            idle_joules=5.0, idle_seconds=0.5, busy_joules=20.0 + 0.2 * (i % 2), busy_seconds=1.0,
            images=images,
        )
        for i in range(10)
    ]  # fmt: skip
    used = energy.energy_figures("RAPL package-0, dram", 1, stretches)
    return replace(result, measured=replace(result.measured, energy=used))


def without_energy(result: Result) -> Result:
    return replace(result, reasons={**result.reasons, "energy": REASON})


def test_a_single_cell_shows_joules_watts_and_the_counter(make_result: Make) -> None:
    text = terminal.render(summary_document([with_energy(make_result())]), width=120, color=False)
    assert "Energy        10.1 mJ [9.95, 10.2] per image at batch 1, idle power excluded\n" in text
    assert "20.1 W busy, 10.0 W idle, counted by RAPL package-0, dram for the whole chip, including other" in text


def test_a_single_cell_shows_why_energy_is_missing(make_result: Make) -> None:
    text = terminal.render(summary_document([without_energy(make_result())]), width=120, color=False)
    assert f"Energy        — ({REASON})\n" in text


def test_several_cells_get_a_table_of_those_with_energy(make_result: Make) -> None:
    results = [with_energy(make_result()), without_energy(make_result(backend="torch", scale=4.0))]
    text = markdown.render(summary_document(results))
    assert "| Cell | Per image, mJ [95 %] | Idle, W | Busy, W | Images |" in text
    rows = [line for line in text.splitlines() if "10.1 [9.95, 10.2]" in line]
    assert rows == ["| openvino 2026.4.1 | 10.1 [9.95, 10.2] | 10.0 | 20.1 | 10000 |"]
    assert "Counter: RAPL package-0, dram; it counts whole chips, including other processes." in text


def test_energy_is_compared_with_the_baseline(make_result: Make) -> None:
    subject, vgg16 = with_energy(make_result()), with_energy(make_result(VGG16, "baseline", scale=100.0), images=20)
    text = markdown.render(summary_document([subject, vgg16]))
    assert "| Energy per image | 10.1 mJ | 505 mJ | 50.0x |" in text
    text = markdown.render(summary_document([subject, make_result(VGG16, "baseline", scale=100.0)]))
    assert "| Energy per image | 10.1 mJ | — | — |" in text


def test_a_page_has_a_section_with_the_reasons_for_missing_energy(make_result: Make) -> None:
    results = [with_energy(make_result()), without_energy(make_result(backend="torch", scale=4.0))]
    (section,) = [section for section in build_page(results).sections if section.id == "energy"]
    assert section.text == (f"Not measured: {REASON}.",)
    assert section.tables[0].rows == (("0.5 MobileNet-128 on openvino", "10.1 [9.95, 10.2]", "10.0", "20.1", "10000"),)
    (section,) = [section for section in build_page(results[1:]).sections if section.id == "energy"]
    assert (section.text, section.tables) == ((f"Not measured: {REASON}.",), ())
    assert "Per image, mJ [95 %]" in html.render(results)


def test_csv_has_energy_figures_but_no_stretches(make_result: Make) -> None:
    header, row = csv.render([with_energy(make_result())]).splitlines()
    columns = dict(zip(header.split(","), row.replace('"RAPL package-0, dram"', "RAPL").split(","), strict=True))
    assert [name for name in columns if ".energy." in name] == [
        f"measured.energy.{name}"
        for name in (
            "counter", "batch", "images", "seconds", "joules_per_image", "joules_per_image_ci95.low",
            "joules_per_image_ci95.high", "idle_watts", "busy_watts",
        )
    ]  # fmt: skip
    assert float(columns["measured.energy.joules_per_image"]) == 0.0101


def test_energy_figures_are_recomputed_from_stretches(make_result: Make) -> None:
    result = with_energy(make_result())
    used = result.measured.energy
    assert used is not None
    assert {name: stored == recomputed for name, stored, recomputed in recompute(result)}["energy"]
    changed = replace(result, measured=replace(result.measured, energy=replace(used, joules_per_image=0.005)))
    faults = verify(html.render([changed]), "page.html").faults
    assert any("energy.joules_per_image is 0.005 in the record but 0.0101" in fault for fault in faults)
