"""The gate's decisions on scripted latencies, without a runtime or a clock."""

import msgspec
import numpy as np
import pytest

from mbbench.compare.changes import DEFAULT_LIMITS, Change, Limit, Metric, parse_limits
from mbbench.compare.gate import (
    Finding,
    Readings,
    Verdict,
    assess,
    compute_change,
    judge,
    needs_second_round,
    worst_outcome,
)
from mbbench.compare.record import CellVerdict
from mbbench.errors import UsageError
from mbbench.measure.jobs.pair import PairedAnswers, Replicate
from mbbench.result import Failure
from mbbench.spec import Cell, ModelSpec
from mbbench.stats import Interval

SAME_SIZE = {"baseline_size_bytes": 1000, "candidate_size_bytes": 1000}


def answers(lost: int = 0, gained: int = 0, images: int = 1000) -> PairedAnswers:
    """Answers of which the baseline has 900 right; the candidate lost and gained some of them."""
    return PairedAnswers(
        images=images,
        agreeing=images - lost - gained,
        baseline_right=900,
        candidate_right=900 - lost + gained,
        only_baseline_right=lost,
        only_candidate_right=gained,
    )


def replicates(
    slowdown: float = 0.0, *, count: int = 10, pairs: int = 80, noise: float = 0.01, disturbed: float = 0.1
) -> tuple[Replicate, ...]:
    """Latencies of 1 ms and 1 + `slowdown` ms with noise and 30 % drift; a share of the calls is disturbed."""
    rng = np.random.default_rng(0)
    result = []
    for index in range(count):
        drift = np.linspace(1 + 0.03 * index, 1 + 0.03 * (index + 1), pairs)
        sides = []
        for factor in (1.0, 1.0 + slowdown):
            latencies = drift * factor * np.exp(noise * rng.standard_normal(pairs))
            sides.append(np.where(rng.random(pairs) < disturbed, latencies * 3, latencies))
        result.append(Replicate(baseline_ms=tuple(sides[0]), candidate_ms=tuple(sides[1])))
    return tuple(result)


def readings(**changes: object) -> Readings:
    defaults = {
        "replicates": replicates(),
        "answers": answers(),
        "baseline_rss_bytes": 100_000_000,
        "candidate_rss_bytes": 100_000_000,
        "baseline_added_rss_bytes": 50_000_000,
        "candidate_added_rss_bytes": 50_000_000,
        **SAME_SIZE,
    }
    return Readings(**(defaults | changes))  # type: ignore[arg-type]


def verdict_on(metric: Metric, limit: str, *rounds: Readings) -> Verdict:
    """The verdict on these rounds; a single round counts twice, as if the second agreed."""
    finding = assess(parse_limits([f"{metric}:{limit}"])[0], rounds if len(rounds) > 1 else rounds * 2)
    ((verdict,),) = judge([[finding]])
    return verdict


def test_the_default_limits_are_parsed_and_written_back() -> None:
    limits = parse_limits(DEFAULT_LIMITS)
    assert [limit.worse for limit in limits] == [0.03, 0.10, 0.05, 0.01, 0.005]
    assert tuple(f"{limit.metric}:{limit.text}" for limit in limits) == DEFAULT_LIMITS


def test_the_last_limit_of_a_metric_counts() -> None:
    assert parse_limits(["p50:3%", "p50:2.5%"]) == (Limit(metric="p50", worse=0.025),)


@pytest.mark.parametrize(
    "text", ["p95:3%", "added_rss:5%", "p50", "p50:-3%", "p50:3", "top1:0.5%", "top1:-0.5%", "size:1pt", ""]
)
def test_an_unknown_limit_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_limits([text])
    assert str(caught.value) == (
        f"unknown limit {text!r}; write limits such as p50:3% p99:10% rss:5% size:1% top1:-0.5pt or added-rss:5%"
    )


def test_added_memory_can_be_limited_but_is_not_by_default() -> None:
    (limit,) = parse_limits(["added-rss:5%"])
    assert (limit, limit.text) == (Limit(metric="added-rss", worse=0.05), "5%")
    assert not any(text.startswith("added-rss") for text in DEFAULT_LIMITS)


def test_equal_latencies_pass() -> None:
    verdict = verdict_on("p50", "1%", readings())
    assert verdict.outcome == "pass"
    assert verdict.change.ci95 is not None
    assert verdict.change.ci95.low < 0 < verdict.change.ci95.high < 0.01


def test_a_slowdown_of_two_percent_fails_a_limit_of_one_despite_drift_and_outliers() -> None:
    verdict = verdict_on("p50", "1%", readings(replicates=replicates(0.02)))
    assert verdict.outcome == "fail"
    assert verdict.change.change == pytest.approx(0.02, abs=0.002)


def test_a_slowdown_of_two_percent_passes_a_limit_of_three() -> None:
    assert verdict_on("p50", "3%", readings(replicates=replicates(0.02))).outcome == "pass"


def test_a_speedup_passes() -> None:
    assert verdict_on("p50", "1%", readings(replicates=replicates(-0.1))).outcome == "pass"


def test_noise_that_hides_the_limit_is_inconclusive() -> None:
    noisy = replicates(0.0, noise=0.3)
    assert verdict_on("p50", "1%", readings(replicates=noisy)).outcome == "inconclusive"


def test_a_difference_between_sessions_cancels_within_a_couple() -> None:
    """The session that is opened first is 3 % faster; replicates alternate which one that is."""
    slow, fast = replicates(0.03, count=1)[0], replicates(0.0, count=1)[0]
    swapped = Replicate(baseline_ms=slow.candidate_ms, candidate_ms=slow.baseline_ms)
    assert fast.baseline_ms == slow.baseline_ms
    change = compute_change("p50", [readings(replicates=(slow, swapped) * 5)])
    assert change.change == pytest.approx(0.0, abs=1e-9)


def test_p99_needs_662_samples() -> None:
    few = compute_change("p99", [readings(replicates=replicates(count=8))])
    assert (few.change, few.reason) == (None, "needs 662 samples, has 640")
    ((verdict,),) = judge([[assess(parse_limits(["p99:10%"])[0], [readings(replicates=replicates(count=8))])]])
    assert verdict.outcome == "inconclusive"
    enough = compute_change("p99", [readings(replicates=replicates(count=10))])
    assert enough.change is not None and enough.ci95 is not None


def test_a_heavier_tail_fails_p99_only() -> None:
    calm = replicates(disturbed=0.0)
    stuttering = tuple(
        Replicate(
            baseline_ms=replicate.baseline_ms,
            candidate_ms=tuple(ms * 2 if index % 20 == 0 else ms for index, ms in enumerate(replicate.candidate_ms)),
        )
        for replicate in calm
    )
    measured = readings(replicates=stuttering)
    assert verdict_on("p50", "1%", measured).outcome == "pass"
    verdict = verdict_on("p99", "10%", measured)
    assert verdict.outcome == "fail"
    assert verdict.change.change is not None and verdict.change.change > 0.5


@pytest.mark.parametrize(("candidate", "outcome"), [(1000, "pass"), (1010, "pass"), (1011, "fail"), (900, "pass")])
def test_size_is_compared_with_its_limit_exactly(candidate: int, outcome: str) -> None:
    assert verdict_on("size", "1%", readings(candidate_size_bytes=candidate)).outcome == outcome


def test_unknown_memory_is_inconclusive() -> None:
    verdict = verdict_on("rss", "5%", readings(candidate_rss_bytes=None))
    assert (verdict.outcome, verdict.change.reason) == ("inconclusive", "the kernel does not report it")


@pytest.mark.parametrize(
    ("lost", "gained", "outcome"),
    [
        (0, 0, "pass"),
        (20, 0, "fail"),  # 2 points, McNemar p 2e-6
        (4, 0, "inconclusive"),  # within the limit, but the interval extends beyond it
        (30, 24, "inconclusive"),  # 0.6 points, not significant
        (0, 20, "pass"),
    ],
)
def test_top1_fails_only_if_the_drop_is_significant(lost: int, gained: int, outcome: str) -> None:
    assert verdict_on("top1", "-0.5pt", readings(answers=answers(lost, gained))).outcome == outcome


def test_equal_answers_pass_however_few_they_are() -> None:
    verdict = verdict_on("top1", "-0.5pt", readings(answers=answers(images=950)))
    assert (verdict.outcome, verdict.change.change, verdict.change.ci95) == ("pass", 0.0, None)
    few = PairedAnswers(
        images=10, agreeing=10, baseline_right=9, candidate_right=9, only_baseline_right=0, only_candidate_right=0
    )
    assert verdict_on("top1", "-0.5pt", readings(answers=few)).outcome == "pass"


def test_top1_without_labels_is_inconclusive() -> None:
    unlabeled = PairedAnswers(
        images=10, agreeing=10, baseline_right=None, candidate_right=None,
        only_baseline_right=None, only_candidate_right=None,
    )  # fmt: skip
    verdict = verdict_on("top1", "-0.5pt", readings(answers=unlabeled))
    assert (verdict.outcome, verdict.change.reason) == ("inconclusive", "there are no usable labels")


def finding_of(metric: Metric, p_value: float | None, amount: float = 0.05) -> Finding:
    interval = None if p_value is None else Interval(amount - 0.03, amount + 0.03)
    change = Change(metric=metric, baseline=1.0, candidate=1 + amount, change=amount, ci95=interval, p_value=p_value)
    return Finding(limit=Limit(metric=metric, worse=0.01), overall=change, rounds=(change, change))


def test_a_failure_needs_stronger_evidence_the_more_is_tested() -> None:
    alone = judge([[finding_of("p50", 0.02)]])
    with_others = judge([[finding_of("p50", 0.02)], [finding_of("p50", 0.9, 0.0)], [finding_of("p99", 0.8, 0.0)]])
    assert alone[0][0].outcome == "fail"
    assert with_others[0][0].outcome == "inconclusive"


def test_a_metric_without_a_p_value_does_not_take_that_of_another() -> None:
    ((size, slow),) = judge([[finding_of("size", None, 0.0), finding_of("p50", 0.001)]])
    assert (size.outcome, slow.outcome) == ("pass", "fail")


def test_a_failure_needs_a_second_round_that_agrees() -> None:
    slow, equal = readings(replicates=replicates(0.05)), readings()
    ((single,),) = judge([[assess(parse_limits(["p50:1%"])[0], [slow])]])
    assert (single.outcome, single.confirmed) == ("inconclusive", None)
    confirmed = verdict_on("p50", "1%", slow, slow)
    assert (confirmed.outcome, confirmed.confirmed) == ("fail", True)
    refuted = verdict_on("p50", "1%", slow, equal)
    assert (refuted.outcome, refuted.confirmed) == ("inconclusive", False)
    assert verdict_on("p50", "1%", equal, equal).confirmed is None


def test_two_rounds_are_stronger_evidence_than_one() -> None:
    noisy = readings(replicates=replicates(0.025, noise=0.12, pairs=60))
    single = compute_change("p50", [noisy])
    double = compute_change("p50", [noisy, noisy])
    assert single.p_value is not None and double.p_value is not None
    assert double.p_value < single.p_value


def test_only_noisy_metrics_need_a_second_round() -> None:
    def repeats(limit: str, first_round: Readings) -> bool:
        return needs_second_round([assess(parse_limits([limit])[0], [first_round])])

    assert not repeats("size:1%", readings(candidate_size_bytes=2000))
    assert not repeats("top1:-0.5pt", readings(answers=answers(lost=100)))
    assert repeats("rss:5%", readings(candidate_rss_bytes=200_000_000))
    assert repeats("added-rss:5%", readings(candidate_added_rss_bytes=60_000_000))
    assert repeats("p50:1%", readings(replicates=replicates(0.05)))
    assert not repeats("p50:1%", readings())


def test_memory_is_averaged_over_rounds_and_has_an_interval_after_calibration() -> None:
    rounds = [readings(candidate_rss_bytes=104_000_000), readings(candidate_rss_bytes=110_000_000)]
    uncalibrated = compute_change("rss", rounds)
    assert (uncalibrated.candidate, uncalibrated.change, uncalibrated.ci95) == (107_000_000, 0.07, None)
    calibrated = compute_change("rss", rounds, spread=0.01, calibration_rounds=20)
    assert calibrated.ci95 is not None
    t = 2.093  # with 19 degrees of freedom
    assert calibrated.ci95.high - calibrated.ci95.low == pytest.approx(2 * t * 0.01 / 2**0.5, rel=1e-3)


def test_uncalibrated_memory_beyond_its_limit_in_one_round_is_inconclusive() -> None:
    rounds = [readings(candidate_rss_bytes=108_000_000), readings(candidate_rss_bytes=104_000_000)]
    assert verdict_on("rss", "5%", *rounds).outcome == "inconclusive"
    assert verdict_on("rss", "5%", readings(candidate_rss_bytes=108_000_000), rounds[0]).outcome == "fail"
    assert verdict_on("rss", "5%", readings(candidate_rss_bytes=104_000_000), rounds[1]).outcome == "pass"


def test_added_memory_is_judged_separately_from_the_peak() -> None:
    """The candidate adds 4 MB, and then 5 MB: 4.5 % of the peak, and 9 % of what the baseline adds."""
    rounds = [
        readings(candidate_rss_bytes=100_000_000 + growth, candidate_added_rss_bytes=50_000_000 + growth)
        for growth in (4_000_000, 5_000_000)
    ]
    assert verdict_on("rss", "5%", *rounds).outcome == "pass"
    verdict = verdict_on("added-rss", "5%", *rounds)
    assert (verdict.outcome, verdict.confirmed) == ("fail", True)
    change = verdict.change
    assert (change.metric, change.baseline, change.candidate) == ("added-rss", 50_000_000, 54_500_000)
    assert (change.change, change.ci95) == (0.09, None)
    calibrated = compute_change("added-rss", rounds, spread=0.01, calibration_rounds=20)
    assert calibrated.ci95 is not None
    half_width = 2.0930240544 * 0.01 / 2**0.5  # t(0.975, 19)
    assert (calibrated.ci95.low, calibrated.ci95.high) == pytest.approx((0.09 - half_width, 0.09 + half_width))


@pytest.mark.parametrize(
    ("baseline", "reason"), [(None, "the kernel does not report it"), (0, "the baseline's value is 0")]
)
def test_added_memory_without_a_baseline_value_is_inconclusive(baseline: int | None, reason: str) -> None:
    verdict = verdict_on("added-rss", "5%", readings(baseline_added_rss_bytes=baseline))
    assert (verdict.outcome, verdict.change.change, verdict.change.reason) == ("inconclusive", None, reason)


def test_readings_stored_before_added_memory_still_load() -> None:
    stored = msgspec.to_builtins(readings(replicates=()))
    del stored["baseline_added_rss_bytes"], stored["candidate_added_rss_bytes"]
    older = msgspec.convert(stored, Readings)
    assert older == readings(replicates=(), baseline_added_rss_bytes=None, candidate_added_rss_bytes=None)


def test_a_cell_that_could_not_be_measured_is_an_error() -> None:
    model = ModelSpec(alpha=0.25, resolution=32)
    cell = CellVerdict(
        cell=Cell(model=model, role="subject", weights="random", backend="onnxruntime", device=""),
        baseline_sha256="aa",
        candidate_sha256="bb",
        rounds=(),
        verdicts=(),
        noise=None,
        failure=Failure(cause="killed", remedy="free memory", exit_code=7),
    )
    assert cell.outcome == "error"


def test_the_worst_outcome_counts() -> None:
    assert worst_outcome(["pass", "error", "inconclusive"]) == "error"
    assert worst_outcome(["error", "fail"]) == "fail"
    assert worst_outcome(["pass", "inconclusive", "fail"]) == "fail"
    assert worst_outcome(["pass", "inconclusive"]) == "inconclusive"
    assert worst_outcome(["pass"]) == worst_outcome([]) == "pass"
