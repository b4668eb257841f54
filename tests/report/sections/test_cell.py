"""The table of everything that was measured about one cell."""

from collections.abc import Callable
from dataclasses import replace

from mbbench.report.names import namer
from mbbench.report.sections.cell import cell_table, drop_text
from mbbench.report.sections.tables import settings, size_and_accuracy
from mbbench.result import LabelsInfo, Memory, Phase, Result, SplitSizes, Throughput, Top1Drop
from mbbench.spec import Preprocessing
from mbbench.stats import Interval

Make = Callable[..., Result]


def _memory(phase: Phase, rss_mb: int, peak_mb: int) -> Memory:
    return Memory(phase=phase, rss_bytes=rss_mb * 10**6, peak_rss_bytes=peak_mb * 10**6)


def _rows(result: Result, **measured: object) -> list[tuple[str, ...]]:
    changed = replace(result, measured=replace(result.measured, **measured))  # type: ignore[arg-type]
    return [tuple(map(str, row)) for row in cell_table(changed).rows]


def test_added_memory_is_the_steady_peak_minus_what_was_resident_before_the_import(make_result: Make) -> None:
    result = make_result()
    memory = (_memory("start", 40, 45), _memory("first_inference", 90, 95), _memory("steady", 100, 140))
    rows = _rows(result, memory=memory)
    index = rows.index(("Peak memory", "140 MB resident (first inference 95.0 MB)"))
    assert rows[index + 1] == ("", "of which the runtime and the network added 100 MB")
    for readings in ((), memory[:-1], memory[1:]):
        incomplete = replace(result, measured=replace(result.measured, memory=readings))
        assert incomplete.added_rss_bytes() is None
        assert not any("added" in text for _, text in _rows(result, memory=readings))


def test_the_splits_of_a_folder_are_shown(make_result: Make) -> None:
    result = make_result()
    assert result.data is not None and not any(name == "Data" for name, _ in _rows(result))
    folder = replace(result, data=replace(result.data, name="photos", splits=SplitSizes(train=16, test=4)))
    assert ("Data", "photos: 16 training and 4 test images") in _rows(folder)


def test_throughput_names_its_batch_size_and_the_others(make_result: Make) -> None:
    rates = tuple(
        Throughput(batch=batch, images=round(rate), seconds=1.0, images_per_s=rate)
        for batch, rate in ((1, 172.0), (4, 174.0), (16, 149.0))
    )
    result = make_result()
    rows = _rows(result, throughput=rates[1], throughputs=rates)
    assert ("Throughput", "174 images/s at batch 4 (172 at 1, 149 at 16)") in rows
    older = _rows(result, throughput=rates[2])
    assert ("Throughput", "149 images/s at batch 16") in older


def test_a_drop_names_the_class_that_lost_most_only_if_one_lost_images() -> None:
    lost = Top1Drop(
        share=0.0125, ci95=Interval(0.0, 0.025), only_reference_right=6, only_this_right=1, p_value=0.125,
        worst_class=3, worst_class_share=0.06,
    )  # fmt: skip
    text = "top-1 -1.25 points [-2.50, +0.00], not significant on 400 images (McNemar's p 0.12)"
    assert drop_text(lost, 400) == f"{text}; class 3 lost most, 6.0 points"
    names = LabelsInfo(source="order", names={3: "shirt"})
    assert drop_text(lost, 400, names) == f"{text}; class shirt lost most, 6.0 points"
    for share in (0.0, -0.02):  # every class kept its images, or gained some
        assert drop_text(replace(lost, worst_class_share=share), 400) == text


def test_mapped_labels_and_preprocessing_are_shown(make_result: Make) -> None:
    labels = LabelsInfo(source="imagenet", names={}, key="ff")
    special = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), channels="bgr")
    result = replace(make_result(), labels=labels, preprocessing=special)
    rows = {row[0]: row[1] for row in _rows(result)}
    assert rows["Accuracy"] == (
        "top-1 99.0 % [97.0, 99.7], top-5 100.0 % [99.0, 100.0] (digits, 359 images, 10 of ImageNet's 1000 classes)"
    )
    assert rows["Settings"].endswith(", streams 1, ImageNet's mean and std, BGR")
    name = namer([result])
    assert (
        size_and_accuracy([result], name)
        .notes[0]
        .startswith("Accuracy on 359 images of digits (10 of ImageNet's 1000 classes). Agreement:")
    )
    (row,) = settings([result]).rows
    assert str(row[1]).endswith("for 2 s; ImageNet's mean and std, BGR")
    (usual,) = settings([make_result()]).rows
    assert str(usual[1]).endswith("for 2 s")
