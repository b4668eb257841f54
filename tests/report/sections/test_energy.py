"""Energy in every format, where it is known; the golden files show that it is nowhere else."""

from collections.abc import Callable
from dataclasses import replace

from mbbench.measure import energy
from mbbench.report.formats import csv, html, markdown, terminal
from mbbench.report.page import page
from mbbench.report.summary import document
from mbbench.report.verify import recompute, verify
from mbbench.result import Result, Stretch
from mbbench.spec import ModelSpec

Make = Callable[..., Result]
VGG16 = ModelSpec(family="vgg16", resolution=128, classes=10)
REASON = "the kernel shows no RAPL counter, as in most virtual machines"


def counted(result: Result, images: int = 1000) -> Result:
    """Ten stretches of a second, 10 W at rest; every other takes 1 % more."""
    stretches = [
        Stretch(
            idle_joules=5.0, idle_seconds=0.5, busy_joules=20.0 + 0.2 * (i % 2), busy_seconds=1.0,
            images=images,
        )
        for i in range(10)
    ]  # fmt: skip
    found = energy.summarize("RAPL package-0, dram", 1, stretches)
    return replace(result, measured=replace(result.measured, energy=found))


def uncounted(result: Result) -> Result:
    return replace(result, reasons={**result.reasons, "energy": REASON})


def test_one_cell_says_joules_watts_and_what_was_counted(make_result: Make) -> None:
    text = terminal.render(document([counted(make_result())]), width=120, color=False)
    assert "Energy        10.1 mJ [9.95, 10.2] an image at batch 1, idling subtracted\n" in text
    assert (
        "              20.1 W busy, 10.0 W idle by RAPL package-0, dram: all of the chip, other processes too\n" in text
    )


def test_one_cell_says_why_there_is_none(make_result: Make) -> None:
    text = terminal.render(document([uncounted(make_result())]), width=120, color=False)
    assert f"Energy        — ({REASON})\n" in text


def test_several_cells_have_a_table_of_those_that_know_it(make_result: Make) -> None:
    results = [counted(make_result()), uncounted(make_result(backend="torch", scale=4.0))]
    text = markdown.render(document(results))
    assert "| Cell | An image, mJ [95 %] | Idle, W | Busy, W | Images |" in text
    rows = [line for line in text.splitlines() if "10.1 [9.95, 10.2]" in line]
    assert rows == ["| openvino 2026.4.1 | 10.1 [9.95, 10.2] | 10.0 | 20.1 | 10000 |"]
    assert "Counted by RAPL package-0, dram: whole chips, other processes too." in text


def test_a_network_beside_a_baseline_has_a_ratio(make_result: Make) -> None:
    subject, other = counted(make_result()), counted(make_result(VGG16, "baseline", scale=100.0), images=20)
    text = markdown.render(document([subject, other]))
    assert "| Energy an image | 10.1 mJ | 505 mJ | 50.0x |  |" in text
    text = markdown.render(document([subject, make_result(VGG16, "baseline", scale=100.0)]))
    assert "| Energy an image | 10.1 mJ | — | — |  |" in text


def test_a_page_has_a_section_with_the_reasons_of_the_others(make_result: Make) -> None:
    results = [counted(make_result()), uncounted(make_result(backend="torch", scale=4.0))]
    (section,) = [section for section in page(results).sections if section.id == "energy"]
    assert section.text == (f"Not counted: {REASON}.",)
    assert section.tables[0].rows == (("0.5 MobileNet-128 on openvino", "10.1 [9.95, 10.2]", "10.0", "20.1", "10000"),)
    (section,) = [section for section in page(results[1:]).sections if section.id == "energy"]
    assert (section.text, section.tables) == ((f"Not counted: {REASON}.",), ())
    assert "An image, mJ [95 %]" in html.render(results)


def test_csv_has_its_figures_and_no_stretches(make_result: Make) -> None:
    header, row = csv.render([counted(make_result())]).splitlines()
    found = dict(zip(header.split(","), row.replace('"RAPL package-0, dram"', "RAPL").split(","), strict=True))
    assert [name for name in found if ".energy." in name] == [
        f"measured.energy.{name}"
        for name in (
            "counter", "batch", "images", "seconds", "joules_per_image", "joules_per_image_ci95.low",
            "joules_per_image_ci95.high", "idle_watts", "busy_watts",
        )
    ]  # fmt: skip
    assert float(found["measured.energy.joules_per_image"]) == 0.0101


def test_its_figures_follow_from_its_stretches(make_result: Make) -> None:
    result = counted(make_result())
    used = result.measured.energy
    assert used is not None
    assert {name: stored == again for name, stored, again in recompute(result)}["energy"]
    changed = replace(result, measured=replace(result.measured, energy=replace(used, joules_per_image=0.005)))
    faults = verify(html.render([changed]), "it").faults
    assert any("energy.joules_per_image is 0.005, recomputed 0.0101" in fault for fault in faults)
