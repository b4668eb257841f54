"""Comparisons of stored results: words, refusals, and noise from run to run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mbbench import store
from mbbench.cli import app
from mbbench.compare import noise
from mbbench.compare.changes import DEFAULT_LIMITS, parse_limits
from mbbench.compare.noise import Floor, Noise
from mbbench.compare.stored import CellComparison, Word, compare, context_differences
from mbbench.errors import IncomparableError, UsageError
from mbbench.measure.latency import latency_figures
from mbbench.report.sections.verdicts import comparison_document
from mbbench.result import Result, WarmUp
from mbbench.spec import ModelSpec, Settings
from tests.compare.test_gate import readings, replicates

Make = Callable[..., Result]
MARGINS = parse_limits(DEFAULT_LIMITS)


def with_latency(result: Result, factor: float, seed: int, n: int = 2000, spread: float = 0.02) -> Result:
    """The result with latencies of about `factor` ms, with noise."""
    samples = factor * np.exp(spread * np.random.default_rng(seed).standard_normal(n))
    latency, _ = latency_figures(
        (samples * 1e6).astype(int).tolist(), batch=1, warmed=WarmUp(runs=30, seconds=0.1, steady=True)
    )
    return replace(result, measured=replace(result.measured, latency=latency))


def with_misclassified(result: Result, wrong: range) -> Result:
    assert result.measured.accuracy is not None
    accuracy = replace(result.measured.accuracy, images=1000, wrong=tuple(wrong))
    return replace(result, measured=replace(result.measured, accuracy=accuracy))


def compare_pair(
    before: Result, after: Result, noise: Noise | None = None, *, anyway: bool = False, p50: str = "3%"
) -> CellComparison:
    margins = parse_limits([*DEFAULT_LIMITS, f"p50:{p50}"])
    (cell,) = compare([before], [after], margins, lambda _: noise, anyway=anyway)
    return cell


def words(cell: CellComparison) -> dict[str, Word]:
    return {metric.change.metric: metric.word for metric in cell.metrics}


def test_equal_results_are_the_same(make_result: Make) -> None:
    before, after = with_latency(make_result(), 1.0, 0), with_latency(make_result(), 1.0, 1)
    assert words(compare_pair(with_misclassified(before, range(9)), with_misclassified(after, range(9)))) == {
        "p50": "same", "p99": "same", "rss": "same", "size": "same", "top1": "same",
    }  # fmt: skip


@pytest.mark.parametrize(("factor", "word"), [(1.02, "slower"), (0.98, "faster")])
def test_a_difference_of_two_percent_is_detected(make_result: Make, factor: float, word: Word) -> None:
    cell = compare_pair(with_latency(make_result(), 1.0, 0), with_latency(make_result(), factor, 1), p50="1%")
    assert words(cell)["p50"] == word
    p50 = cell.metrics[0]
    assert p50.change.change == pytest.approx(factor - 1, abs=0.002)
    assert p50.effect_size is not None and (p50.effect_size > 0.5) == (factor > 1)


def test_a_significant_difference_within_the_margin_is_the_same(make_result: Make) -> None:
    """+0.3 % is significant with 20,000 samples, and equivalent at a margin of 3 %; +2 % is neither at 2 %."""
    before, after = with_latency(make_result(), 1.0, 0, 20_000), with_latency(make_result(), 1.003, 1, 20_000)
    cell = compare_pair(before, after)
    assert cell.metrics[0].change.p_value is not None and cell.metrics[0].change.p_value < 1e-3
    assert words(cell)["p50"] == "same"
    assert words(compare_pair(before, after, p50="0.1%"))["p50"] == "slower"


def test_a_p99_of_few_samples_is_inconclusive(make_result: Make) -> None:
    cell = compare_pair(with_latency(make_result(), 1.0, 0), with_latency(make_result(), 1.1, 1, n=300))
    assert words(cell)["p50"] == "slower"
    assert (cell.metrics[1].word, cell.metrics[1].change.reason) == ("inconclusive", "needs 662 samples, has 300")


def test_a_size_is_bigger_or_smaller(make_result: Make) -> None:
    by_metric = words(compare_pair(make_result(), make_result(scale=1.5)))
    assert (by_metric["size"], by_metric["rss"]) == ("bigger", "same")
    assert words(compare_pair(make_result(scale=1.5), make_result()))["size"] == "smaller"


def test_added_memory_is_compared_separately_from_the_peak(make_result: Make) -> None:
    """Both start with 30 MB; the peak grows from 125 to 130 MB (4.0 %), what was added from 95 to 100 MB (5.3 %)."""
    before = make_result()
    grown = tuple(
        replace(reading, peak_rss_bytes=130_000_000) if reading.phase == "steady" else reading
        for reading in before.measured.memory
    )
    after = replace(before, measured=replace(before.measured, memory=grown))
    margins = parse_limits(["rss:5%", "added-rss:5%"])
    (cell,) = compare([before], [after], margins, lambda _: None, anyway=False)
    assert words(cell) == {"rss": "same", "added-rss": "bigger"}
    change = cell.metrics[1].change
    assert (change.baseline, change.candidate, change.change) == (95_000_000, 100_000_000, 5 / 95)
    (cell,) = compare([after], [before], margins, lambda _: None, anyway=False)
    assert words(cell) == {"rss": "same", "added-rss": "same"}  # -5.0 %
    (cell,) = compare([after], [before], parse_limits(["added-rss:4%"]), lambda _: None, anyway=False)
    assert words(cell) == {"added-rss": "smaller"}
    floor = Floor(within=0.001, between=0.1, detectable=0.01)
    calibrated = Noise(time_utc="2026", rounds=20, seconds=5.0, floors={"added-rss": floor})
    (cell,) = compare([before], [after], margins, lambda _: calibrated, anyway=False)
    rss, added = (metric.change for metric in cell.metrics)
    assert rss.ci95 is None and added.ci95 is not None
    assert added.ci95.high - added.ci95.low == pytest.approx(2 * 2.0930240544 * 0.1 * 2**0.5, rel=1e-6)


def test_added_memory_without_a_reading_at_the_start_is_inconclusive(make_result: Make) -> None:
    before = make_result()
    later = tuple(reading for reading in before.measured.memory if reading.phase != "start")
    after = replace(before, measured=replace(before.measured, memory=later))
    (cell,) = compare([before], [after], parse_limits(["added-rss:5%"]), lambda _: None, anyway=False)
    (metric,) = cell.metrics
    assert (metric.word, metric.change.candidate, metric.change.change) == ("inconclusive", None, None)


def test_top1_is_paired_by_image(make_result: Make) -> None:
    """100 wrong answers before; then the same ones, 40 others, 20 more, or 20 fewer."""
    base = with_misclassified(make_result(), range(100))
    assert words(compare_pair(base, with_misclassified(base, range(100))))["top1"] == "same"
    assert words(compare_pair(base, with_misclassified(base, range(40, 140))))["top1"] == "inconclusive"
    assert words(compare_pair(base, with_misclassified(base, range(120))))["top1"] == "worse"
    assert words(compare_pair(base, with_misclassified(base, range(80))))["top1"] == "better"


def test_answers_to_different_images_are_not_compared(make_result: Make) -> None:
    base = with_misclassified(make_result(), range(100))
    assert base.data is not None
    on_other_images = replace(base, data=replace(base.data, fingerprint="other"))
    assert compare_pair(base, on_other_images).metrics[4].change.reason == "the test images differ"


def test_noise_from_run_to_run_widens_the_intervals(make_result: Make) -> None:
    before, after = with_latency(make_result(), 1.0, 0), with_latency(make_result(), 1.02, 1)
    floor = Floor(within=0.001, between=0.03, detectable=0.01)
    noise_floor = Noise(time_utc="2026", rounds=20, seconds=5.0, floors={"p50": floor, "rss": floor})
    cell = compare_pair(before, after, noise_floor)
    assert words(cell)["p50"] == "inconclusive"
    assert cell.metrics[0].change.ci95 is not None
    assert cell.metrics[0].change.ci95.high - cell.metrics[0].change.ci95.low > 0.15
    assert cell.metrics[2].change.ci95 is not None


@pytest.mark.parametrize(("rounds", "quantile"), [(5, 2.7764451052), (20, 2.0930240544)])  # t(0.975, rounds - 1)
def test_calibrated_intervals_have_the_degrees_of_freedom_of_the_calibration(
    make_result: Make, rounds: int, quantile: float
) -> None:
    """The runs' own noise is negligible, so that the spread between runs is all: 0.1, used twice."""
    before, after = (with_latency(make_result(), 1.0, seed, spread=1e-6) for seed in (0, 1))
    floor = Floor(within=0.001, between=0.1, detectable=0.01)
    measured_less_often = replace(floor, rounds=4)
    noise_floor = Noise(
        time_utc="2026", rounds=rounds, seconds=5.0,
        floors={"p50": floor, "p99": measured_less_often, "rss": floor},
    )  # fmt: skip
    p50, p99, rss, *_ = (metric.change for metric in compare_pair(before, after, noise_floor).metrics)
    for change, t in ((p50, quantile), (p99, 3.1824463053)):
        assert change.ci95 is not None
        assert np.log1p(change.ci95.high) - np.log1p(change.ci95.low) == pytest.approx(2 * t * 0.1 * 2**0.5, rel=1e-4)
    assert rss.ci95 is not None
    assert rss.ci95.high - rss.ci95.low == pytest.approx(2 * quantile * 0.1 * 2**0.5, rel=1e-6)


def test_different_machines_runtimes_and_settings_are_refused(make_result: Make) -> None:
    base = make_result()
    changed = replace(
        base,
        machine=replace(base.machine, cpu="Other CPU"),
        versions={**base.versions, "openvino": "2027.1", "numpy": "3"},
        settings=Settings(threads=2, min_s=5.0),
    )
    assert context_differences(base, changed) == (
        "machines (Test CPU, 2 cores (4 threads), AVX512F AVX512_VNNI, 16 GiB and Other CPU, 2 cores (4 threads),"
        " AVX512F AVX512_VNNI, 16 GiB)",
        "runtimes (openvino 2026.4.1 and 2027.1)",
        "settings (threads 1 and 2)",
    )
    with pytest.raises(IncomparableError) as caught:
        compare_pair(base, changed)
    assert caught.value.exit_code == 8
    assert compare_pair(base, changed, anyway=True).context_differences == context_differences(base, changed)


def test_torch_is_a_runtime_for_its_own_backends(make_result: Make) -> None:
    base = make_result(backend="torch")
    changed = replace(base, versions={**base.versions, "torch": "3"})
    assert context_differences(base, changed) == ("runtimes (torch 2.13.0 and 3)",)


def test_results_without_a_common_cell_are_refused(make_result: Make) -> None:
    with pytest.raises(UsageError, match="no measured cell in common"):
        compare([make_result()], [make_result(backend="torch")], MARGINS, lambda _: None, anyway=False)


def test_the_newest_result_of_a_cell_counts(make_result: Make) -> None:
    old, new = make_result(scale=3.0), make_result()
    (cell,) = compare([old, new], [make_result()], MARGINS, lambda _: None, anyway=False)
    assert cell.before == new


def test_titles_tell_cells_of_one_network_apart(make_result: Make) -> None:
    results = [replace(make_result(), settings=Settings(batch=batch)) for batch in (1, 4)]
    document = comparison_document(list(compare(results, results, MARGINS, lambda _: None, anyway=False)))
    assert [table.title for table in document.tables] == [
        "0.5 MobileNet-128 on openvino, batch 1",
        "0.5 MobileNet-128 on openvino, batch 4",
    ]


def test_the_command_prints_tables_and_refuses_different_settings(
    make_result: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    golden: Callable[[str, str], None],
) -> None:
    before, after = with_latency(make_result(), 1.0, 0), with_latency(make_result(scale=1.1), 1.1, 1)
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "c.jsonl"]
    batch_4 = replace(after, settings=Settings(batch=4))
    for path, result in zip(files, (before, with_misclassified(after, range(9)), batch_4), strict=True):
        store.append(path, result)

    def run(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["mbbench", "compare", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "80")
        try:
            app.main()
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    assert run(files[0], files[1]) == 0
    golden(capsys.readouterr().out, "compare.txt")
    assert run(files[0], files[2]) == 8
    assert capsys.readouterr().err == (
        "error: the results differ in settings (batch 1 and 4); measure both in the same way, or add --anyway\n"
    )


def test_noise_is_estimated_from_identical_artifacts_and_read_back(make_result: Make) -> None:
    rng = np.random.default_rng(3)
    rounds = [
        readings(
            replicates=replicates(float(rng.normal(0, 0.002))),
            candidate_rss_bytes=100_000_000 + growth,
            candidate_added_rss_bytes=50_000_000 + growth,
        )
        for growth in (round(100_000_000 * rng.normal(0, 0.01)) for _ in range(20))
    ]
    estimate = noise.estimate(rounds, 5.0, "2026-01-02")
    assert set(estimate.floors) == {"p50", "p99", "rss", "added-rss"}
    p50, rss, added = (estimate.floors[metric] for metric in ("p50", "rss", "added-rss"))
    assert 0.001 < p50.within < 0.003
    assert p50.between == pytest.approx(0.0, abs=1e-9)  # the baseline is the same in every round
    assert p50.within < p50.detectable < 0.02
    assert rss.detectable == pytest.approx(2 * 2.0930240544 * rss.within, rel=1e-6)  # t(0.975, 19), as in a gate
    assert (added.within, added.detectable) == pytest.approx((2 * rss.within, 2 * rss.detectable), rel=1e-6)
    assert (rss.rounds, estimate.rounds_of("p50")) == (20, 20)
    result: Any = make_result()
    assert noise.read(result.machine, result.cell, 1, 1) is None
    noise.write(estimate, result.machine, result.cell, 1, 1)
    assert noise.read(result.machine, result.cell, 1, 1) == estimate
    assert noise.read(result.machine, result.cell, 2, 1) is None


def test_noise_counts_only_the_rounds_that_measured_a_metric() -> None:
    """p99 needs 662 samples: two of six rounds are too short for it."""
    rounds = [readings(replicates=replicates(0.001 * index)) for index in range(4)]
    estimate = noise.estimate([*rounds, *[readings(replicates=replicates(count=8))] * 2], 5.0, "2026")
    assert (estimate.rounds, estimate.rounds_of("p50"), estimate.rounds_of("p99")) == (6, 6, 4)
    old = replace(estimate, floors={"p50": replace(estimate.floors["p50"], rounds=None)})
    assert old.rounds_of("p50") == 6


def test_a_pruned_network_is_compared_with_the_whole_one(make_result: Make) -> None:
    whole = make_result(ModelSpec(alpha=0.5, resolution=128, classes=10))
    pruned = make_result(replace(whole.cell.model, widths=(8,) * 14), scale=0.5)
    (cell,) = compare([whole], [pruned], MARGINS, lambda _: None, anyway=False)
    assert (cell.before, cell.after, words(cell)["size"]) == (whole, pruned, "smaller")
    pairs = compare([pruned, whole], [whole, pruned], MARGINS, lambda _: None, anyway=False)
    assert [(cell.before, cell.after) for cell in pairs] == [(pruned, pruned), (whole, whole)]


def test_the_default_device_is_the_same_cell_as_the_one_that_is_named(make_result: Make) -> None:
    old = make_result()
    named = replace(old, cell=replace(old.cell, device="CPU"))
    assert len(compare([old], [named], MARGINS, lambda _: None, anyway=False)) == 1


def test_files_of_other_names_are_other_networks(make_result: Make) -> None:
    first, second = (
        make_result(ModelSpec("onnx", resolution=32, classes=10, name=name, sha256=name * 32)) for name in ("aa", "bb")
    )
    again = make_result(replace(second.cell.model, sha256="cc" * 32))
    pairs = compare([first, second], [again, first], MARGINS, lambda _: None, anyway=False)
    assert [(cell.before, cell.after) for cell in pairs] == [(first, first), (second, again)]


def test_batches_are_compared_with_themselves(make_result: Make) -> None:
    of_1 = make_result()
    of_8 = replace(make_result(scale=8.0), settings=Settings(batch=8))
    pairs = compare([of_1, of_8], [of_8, of_1], MARGINS, lambda _: None, anyway=False)
    assert [(cell.before, cell.after) for cell in pairs] == [(of_1, of_1), (of_8, of_8)]
