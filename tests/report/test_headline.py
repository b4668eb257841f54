"""Conclusions claim no more than the intervals show, and name the machine if there are several."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from mbbench.report.headline import conclusions, failures, fastest_sentence
from mbbench.report.names import namer
from mbbench.result import Failure, Measured, Result, Top1Drop
from mbbench.spec import ModelSpec
from mbbench.stats import Interval, mcnemar, paired_interval, wilson_interval

Make = Callable[..., Result]


def rated(result: Result, correct: int, images: int = 1000) -> Result:
    accuracy = result.measured.accuracy
    assert accuracy is not None
    accuracy = replace(
        accuracy, images=images, top1=correct / images, top1_ci95=wilson_interval(correct, images), drop=None
    )
    return replace(result, measured=replace(result.measured, accuracy=accuracy))


def in_int8(result: Result, lost: int, gained: int = 0, images: int = 1000) -> Result:
    """The result in int8, with these numbers of answers lost and gained against fp32."""
    accuracy = result.measured.accuracy
    assert accuracy is not None
    drop = Top1Drop(
        share=(lost - gained) / images, ci95=paired_interval(lost, gained, images), only_reference_right=lost,
        only_this_right=gained, p_value=mcnemar(lost, gained), worst_class=1, worst_class_share=0.0,
    )  # fmt: skip
    measured = replace(result.measured, accuracy=replace(accuracy, drop=drop))
    return replace(result, cell=replace(result.cell, precision="int8"), measured=measured)


def on(result: Result, cpu: str) -> Result:
    return replace(result, machine=replace(result.machine, cpu=cpu))


def sentences(*results: Result) -> list[str]:
    return list(conclusions(results, namer(results)))


def test_each_machine_has_its_own_sentences(make_result: Make) -> None:
    small, large = ModelSpec(alpha=0.25, classes=10), ModelSpec(alpha=0.5, classes=10)
    results = [on(make_result(model, scale=scale), cpu) for cpu, scale in (("A", 1.0), ("B", 2.0))
               for model in (small, large)]  # fmt: skip
    texts = sentences(*results)
    assert texts[0].startswith("On A: 0.25 MobileNet-224 on openvino: 0.504 ms per image (lowest median of 2 cells")
    assert any(text.startswith("On B: 0.25 MobileNet-224 on openvino: 1.01 ms per image") for text in texts)


def test_a_cpu_and_a_gpu_have_their_own_sentences(make_result: Make) -> None:
    """The runtime and the machine are the same; a precision is compared with fp32 on the same device."""
    facts = {"device": "NVIDIA H100 (compute capability 9.0)"}
    cpu = [make_result(backend="torch", scale=8.0), in_int8(make_result(backend="torch", scale=4.0), 0)]
    gpu = [
        replace(result, cell=replace(result.cell, device="cuda:0"), measured=replace(result.measured, effective=facts))
        for result in (make_result(backend="torch"), in_int8(make_result(backend="torch", scale=0.2), 0))
    ]
    texts = [text for text in sentences(*cpu, *gpu) if "cannot be told" not in text]
    assert texts == [
        "On Test CPU: 0.5 MobileNet-128 in int8 on torch: 2.02 ms per image (lowest median of 2 cells),"
        " 99.0 % top-1 on digits, 21.2 MB on disk.",
        "On Test CPU: torch in int8 takes 0.50 times as long as in fp32 and shows no loss of top-1 (1 network).",
        "On NVIDIA H100 (compute capability 9.0): 0.5 MobileNet-128 in int8 on torch: 0.101 ms per image (lowest median"
        " of 2 cells), 99.0 % top-1 on digits, 1.06 MB on disk.",
        "On NVIDIA H100 (compute capability 9.0): torch cuda:0 in int8 takes 0.20 times as long as in fp32 and shows no"
        " loss of top-1 (1 network).",
    ]


def test_a_conclusion_about_one_of_several_networks_names_it(make_result: Make) -> None:
    other = make_result(ModelSpec(alpha=0.25, classes=10), scale=0.5)
    fp32, int8 = make_result(), in_int8(make_result(scale=0.5), 0)
    assert sentences(fp32, int8, other)[-1].endswith(" shows no loss of top-1 (0.5 MobileNet-128).")
    both = sentences(fp32, int8, other, in_int8(other, 0))
    assert both[-1].endswith(" shows no loss of top-1 (2 networks).")


def test_tied_medians_are_said_to_be_tied(make_result: Make) -> None:
    first, second = make_result(ModelSpec(alpha=0.25, classes=10)), make_result(ModelSpec(alpha=0.5, classes=10))
    assert "(lowest median of 2 cells, statistically tied with 1)" in fastest_sentence([first, second])
    slower = make_result(ModelSpec(alpha=0.5, classes=10), scale=1.1)
    assert "(lowest median of 2 cells)" in fastest_sentence([first, slower])


def test_latencies_of_other_batch_sizes_are_not_compared(make_result: Make) -> None:
    of_1 = make_result(scale=2.0)
    latency = make_result().measured.latency
    assert latency is not None
    of_8 = replace(make_result(), measured=replace(make_result().measured, latency=replace(latency, batch=8)))
    assert fastest_sentence([of_1, of_8]).startswith("0.5 MobileNet-128 on openvino: 1.01 ms per image, ")
    torch = replace(of_1, cell=replace(of_1.cell, backend="torch"))
    assert "(lowest median of 2 cells of batch 1, statistically tied with 1)" in fastest_sentence([of_1, torch, of_8])


def test_the_most_accurate_is_named_only_if_the_images_can_show_it(make_result: Make) -> None:
    fast = make_result(ModelSpec(alpha=0.25, classes=10))
    slow = make_result(ModelSpec(alpha=1.0, classes=10), scale=8.0)
    (_, distinct) = sentences(rated(fast, 850), rated(slow, 950))
    assert distinct == "1.0 MobileNet-224 on openvino is the most accurate: 95.0 % [93.5, 96.2] top-1 in 4.04 ms."
    (_, equal) = sentences(rated(fast, 990), rated(slow, 990))
    assert equal == (
        "0.25 MobileNet-224 on openvino is the fastest of the 2 cells whose top-1 cannot be told from the highest"
        " (99.0 %, 0.25 MobileNet-224 on openvino) on 1000 images: 99.0 % [98.2, 99.5] in 0.504 ms."
    )
    (_, overlapping) = sentences(rated(fast, 356, 359), rated(slow, 359, 359))
    assert "cannot be told from the highest (100.0 %" in overlapping
    (_, tied) = sentences(rated(fast, 22, 40), rated(slow, 23, 40))
    assert tied == (
        "0.25 MobileNet-224 on openvino is the fastest of the 2 cells whose top-1 cannot be told from the highest"
        " (57.5 %, 1.0 MobileNet-224 on openvino) on 40 images: 55.0 % [39.8, 69.3] in 0.504 ms, 8.00x faster."
    )


@pytest.mark.parametrize(
    ("lost", "gained", "images", "text"),
    [
        (3, 0, 40, "shows no significant loss of top-1 (at most 7.50 points, McNemar's p 0.25)"),
        (0, 25, 1000, "shows no loss of top-1"),
        (30, 5, 1000, "loses 2.50 points of top-1"),
    ],
)
def test_a_loss_is_told_only_if_it_is_significant(
    make_result: Make, lost: int, gained: int, images: int, text: str
) -> None:
    fp32, int8 = make_result(), in_int8(make_result(scale=0.5), lost, gained, images)
    assert sentences(fp32, int8)[-1] == f"openvino in int8 takes 0.50 times as long as in fp32 and {text} (1 network)."


def test_a_span_of_one_value_is_one_value_and_networks_are_counted_once(make_result: Make) -> None:
    models = [ModelSpec(alpha=alpha, classes=10) for alpha in (0.25, 0.5)]
    results = [on(make_result(model), cpu) for model in models for cpu in ("A", "B")]
    texts = sentences(*results, *(in_int8(result, 0) for result in results))
    assert [text for text in texts if "takes" in text] == [
        f"On {cpu}: openvino in int8 takes 1.00 times as long as in fp32 and shows no loss of top-1 (2 networks)."
        for cpu in "AB"
    ]


def test_what_a_runtime_does_not_have_is_no_failure(make_result: Make) -> None:
    def failed(exit_code: int) -> Result:
        failure = Failure(cause="it cannot", remedy="leave it out", exit_code=exit_code)
        return replace(make_result(), failure=failure, measured=Measured())

    assert list(failures([make_result(), failed(6), failed(6), failed(7)], "Notes")) == [
        "1 of 4 cells failed; the reasons are under Notes.",
        "2 of 4 cells are not supported here; the reasons are under Notes.",
    ]
    assert list(failures([make_result()], "Notes")) == []


def test_the_interval_of_the_tie_is_that_of_the_median(make_result: Make) -> None:
    result = make_result()
    latency = result.measured.latency
    assert latency is not None and latency.median_ci95_ms is not None
    wide = replace(latency, median_ci95_ms=Interval(latency.median_ms * 0.9, latency.median_ms * 1.2))
    other = replace(make_result(scale=1.1), cell=replace(make_result().cell, backend="torch"))
    uncertain = replace(result, measured=replace(result.measured, latency=wide))
    assert "statistically tied with 1" in fastest_sentence([uncertain, other])
