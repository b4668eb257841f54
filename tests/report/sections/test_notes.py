"""Notes on results; those on disturbances are in test_verdicts."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from mbbench.doctor import Check
from mbbench.report.sections.notes import collect_notes
from mbbench.result import Accuracy, Candidate, QuantizationInfo, Result, WeightsInfo
from mbbench.stats import wilson_interval

Make = Callable[..., Result]
CHECK = (
    "check that the mean and std (--mean, --std), the order of channels (--channels) and the order of labels (--labels)"
    " are those that the checkpoint was trained with."
)
CHANCE = f"Top-1 is no better than chance: 0.5 MobileNet-128 on openvino; {CHECK}"
BELOW = f"Top-1 is less than half that on the calibration images: 0.5 MobileNet-128 on openvino; {CHECK}"


def imported(result: Result, right: int, lost: int = 0, images: int = 200, calibrated: float | None = None) -> Result:
    """Return `result` with weights from a file, `right` answers, and `lost` more by PyTorch in fp32."""
    accuracy = result.measured.accuracy
    assert accuracy is not None and accuracy.drop is not None
    changed: Accuracy = replace(
        accuracy, images=images, top1=right / images, top1_ci95=wilson_interval(right, images),
        drop=replace(accuracy.drop, share=lost / images),
    )  # fmt: skip
    quantization = None
    if calibrated is not None:
        candidate = Candidate(ranges="mse", equalized=False, corrected=False, share=calibrated, logit_rmse=0.1)
        quantization = QuantizationInfo(
            calibration="x", calibration_fingerprint="ff", images=99, held_out=99, judged_by="top1", chosen=candidate,
            candidates=(candidate,), kept_fp32=(),
        )  # fmt: skip
    return replace(
        result, measured=replace(result.measured, accuracy=changed), conditions=(), quantization=quantization,
        weights=WeightsInfo(origin="file", key="aa", trained_on=None),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("right", "lost", "calibrated", "notes"),
    [
        (20, 0, None, [CHANCE]),  # of 200 images of ten classes
        (0, 0, None, [CHANCE]),
        (40, 0, None, []),
        (190, 0, None, []),
        (20, 170, None, []),  # PyTorch in fp32 is right: the runtime or INT8 is to blame, not the inputs
        (190, 0, 0.96, []),
        (100, 0, 0.9, []),
        (60, 0, 0.9, [BELOW]),
        (20, 0, 0.9, [CHANCE]),
        (60, 120, 0.9, []),
    ],
)
def test_what_to_check_is_named_only_where_fp32_fails(
    make_result: Make, right: int, lost: int, calibrated: float | None, notes: list[str]
) -> None:
    result = imported(make_result(), right, lost, calibrated=calibrated)
    assert collect_notes([result]) == notes


def test_images_that_are_left_out_are_noted_once(make_result: Make) -> None:
    result = replace(make_result(), conditions=())
    assert result.data is not None
    skipping = replace(result, data=replace(result.data, skipped=3))
    assert collect_notes([result, skipping, skipping]) == [
        "3 of 362 test images of digits cannot be decoded and are left out."
    ]


def test_networks_trained_here_and_without_labels_are_not_blamed(make_result: Make) -> None:
    result = imported(make_result(), 20)
    assert collect_notes([replace(result, weights=make_result().weights)]) == []
    assert result.measured.accuracy is not None
    unlabeled = replace(result.measured.accuracy, top1=None, top1_ci95=None, drop=None)
    assert collect_notes([replace(result, measured=replace(result.measured, accuracy=unlabeled))]) == []


def test_warnings_of_one_condition_are_one_note(make_result: Make) -> None:
    found = ["0.50 of 4 cores", "1.20 of 4 cores", "0.50 of 4 cores", "0.70 of 4 cores"]
    results = [
        replace(
            make_result(backend=f"runtime{number}"),
            conditions=(Check(name="load", status="warn", found=text, remedy="stop x"),),
        )
        for number, text in enumerate(found)
    ]
    assert "load: 0.50 of 4 cores, and the like in 2 other cells; stop x." in collect_notes(results)
    assert "load: 0.50 of 4 cores; stop x." in collect_notes(results[:1])
