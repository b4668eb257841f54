"""The gate's decisions on scripted latencies, with no runtime and no clock."""

import numpy as np
import pytest

from mbbench.compare.changes import DEFAULTS, Change, Limit, Metric, limits
from mbbench.compare.gate import Finding, Readings, Verdict, change, finding, in_doubt, judge, worst
from mbbench.errors import UsageError
from mbbench.measure.jobs.pair import Answers, Replicate
from mbbench.stats import Interval

SAME_SIZE = {"baseline_size_bytes": 1000, "candidate_size_bytes": 1000}


def answers(lost: int = 0, gained: int = 0, images: int = 1000) -> Answers:
    """900 right answers of the baseline's."""
    return Answers(
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
    """1 ms and 1 + `slowdown` ms with noise, drifting by 30 % over the round, and a share of the calls disturbed."""
    chance = np.random.default_rng(0)
    found = []
    for index in range(count):
        drift = np.linspace(1 + 0.03 * index, 1 + 0.03 * (index + 1), pairs)
        sides = []
        for factor in (1.0, 1.0 + slowdown):
            latencies = drift * factor * np.exp(noise * chance.standard_normal(pairs))
            sides.append(np.where(chance.random(pairs) < disturbed, latencies * 3, latencies))
        found.append(Replicate(baseline_ms=tuple(sides[0]), candidate_ms=tuple(sides[1])))
    return tuple(found)


def readings(**changes: object) -> Readings:
    defaults = {
        "replicates": replicates(),
        "answers": answers(),
        "baseline_rss_bytes": 100_000_000,
        "candidate_rss_bytes": 100_000_000,
        **SAME_SIZE,
    }
    return Readings(**(defaults | changes))  # type: ignore[arg-type]


def one(metric: Metric, limit: str, *rounds: Readings) -> Verdict:
    """The verdict on these rounds; one round is taken twice, as if the second agreed."""
    found = finding(limits([f"{metric}:{limit}"])[0], rounds if len(rounds) > 1 else rounds * 2)
    ((verdict,),) = judge([[found]])
    return verdict


def test_the_documented_defaults_are_understood_and_written_alike() -> None:
    found = limits(DEFAULTS)
    assert [limit.worse for limit in found] == [0.03, 0.10, 0.05, 0.01, 0.005]
    assert tuple(f"{limit.metric}:{limit.text}" for limit in found) == DEFAULTS


def test_the_last_limit_of_a_metric_counts() -> None:
    assert limits(["p50:3%", "p50:2.5%"]) == (Limit(metric="p50", worse=0.025),)


@pytest.mark.parametrize("text", ["p95:3%", "p50", "p50:-3%", "p50:3", "top1:0.5%", "top1:-0.5%", "size:1pt", ""])
def test_what_is_no_limit_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        limits([text])
    assert str(caught.value) == (
        f"{text!r} is no limit; write it like one of p50:3% p99:10% rss:5% size:1% top1:-0.5pt"
    )


def test_the_same_latencies_pass() -> None:
    verdict = one("p50", "1%", readings())
    assert verdict.outcome == "pass"
    assert verdict.change.ci95 is not None
    assert verdict.change.ci95.low < 0 < verdict.change.ci95.high < 0.01


def test_two_percent_slower_fails_at_one_in_spite_of_drift_and_outliers() -> None:
    verdict = one("p50", "1%", readings(replicates=replicates(0.02)))
    assert verdict.outcome == "fail"
    assert verdict.change.change == pytest.approx(0.02, abs=0.002)


def test_two_percent_slower_passes_at_three() -> None:
    assert one("p50", "3%", readings(replicates=replicates(0.02))).outcome == "pass"


def test_faster_passes() -> None:
    assert one("p50", "1%", readings(replicates=replicates(-0.1))).outcome == "pass"


def test_noise_that_hides_the_limit_is_inconclusive() -> None:
    noisy = replicates(0.0, noise=0.3)
    assert one("p50", "1%", readings(replicates=noisy)).outcome == "inconclusive"


def test_a_difference_between_sessions_is_spread_and_not_an_effect() -> None:
    """Whichever session is opened first is 3 % faster: within a couple that cancels."""
    slow, fast = replicates(0.03, count=1)[0], replicates(0.0, count=1)[0]
    swapped = Replicate(baseline_ms=slow.candidate_ms, candidate_ms=slow.baseline_ms)
    assert fast.baseline_ms == slow.baseline_ms
    found = change("p50", [readings(replicates=(slow, swapped) * 5)])
    assert found.change == pytest.approx(0.0, abs=1e-9)


def test_p99_needs_662_samples() -> None:
    few = change("p99", [readings(replicates=replicates(count=8))])
    assert (few.change, few.reason) == (None, "needs 662 samples, has 640")
    ((verdict,),) = judge([[finding(limits(["p99:10%"])[0], [readings(replicates=replicates(count=8))])]])
    assert verdict.outcome == "inconclusive"
    enough = change("p99", [readings(replicates=replicates(count=10))])
    assert enough.change is not None and enough.ci95 is not None


def test_a_heavier_tail_fails_p99_and_not_p50() -> None:
    calm = replicates(disturbed=0.0)
    stutters = tuple(
        Replicate(
            baseline_ms=one.baseline_ms,
            candidate_ms=tuple(ms * 2 if index % 20 == 0 else ms for index, ms in enumerate(one.candidate_ms)),
        )
        for one in calm
    )
    given = readings(replicates=stutters)
    assert one("p50", "1%", given).outcome == "pass"
    verdict = one("p99", "10%", given)
    assert verdict.outcome == "fail"
    assert verdict.change.change is not None and verdict.change.change > 0.5


@pytest.mark.parametrize(("candidate", "outcome"), [(1000, "pass"), (1010, "pass"), (1011, "fail"), (900, "pass")])
def test_size_is_held_against_its_limit_exactly(candidate: int, outcome: str) -> None:
    given = readings(candidate_size_bytes=candidate)
    assert one("size", "1%", given).outcome == outcome


def test_memory_that_no_kernel_tells_is_inconclusive() -> None:
    given = readings(candidate_rss_bytes=None)
    verdict = one("rss", "5%", given)
    assert (verdict.outcome, verdict.change.reason) == ("inconclusive", "the kernel does not tell it here")


@pytest.mark.parametrize(
    ("lost", "gained", "outcome"),
    [
        (0, 0, "pass"),
        (20, 0, "fail"),  # 2 points, McNemar p 2e-6
        (4, 0, "inconclusive"),  # within the limit, but the interval reaches beyond it
        (30, 24, "inconclusive"),  # 0.6 points that the images cannot show
        (0, 20, "pass"),
    ],
)
def test_top1_fails_only_where_the_images_can_show_it(lost: int, gained: int, outcome: str) -> None:
    assert one("top1", "-0.5pt", readings(answers=answers(lost, gained))).outcome == outcome


def test_the_same_answers_pass_however_few_they_are() -> None:
    verdict = one("top1", "-0.5pt", readings(answers=answers(images=950)))
    assert (verdict.outcome, verdict.change.change, verdict.change.ci95) == ("pass", 0.0, None)
    few = Answers(
        images=10, agreeing=10, baseline_right=9, candidate_right=9, only_baseline_right=0, only_candidate_right=0
    )
    assert one("top1", "-0.5pt", readings(answers=few)).outcome == "pass"


def test_top1_without_labels_is_inconclusive() -> None:
    blind = Answers(
        images=10, agreeing=10, baseline_right=None, candidate_right=None,
        only_baseline_right=None, only_candidate_right=None,
    )  # fmt: skip
    verdict = one("top1", "-0.5pt", readings(answers=blind))
    assert (verdict.outcome, verdict.change.reason) == ("inconclusive", "there are no labels to go by")


def found_of(metric: Metric, p_value: float | None, amount: float = 0.05) -> Finding:
    interval = None if p_value is None else Interval(amount - 0.03, amount + 0.03)
    found = Change(metric=metric, baseline=1.0, candidate=1 + amount, change=amount, ci95=interval, p_value=p_value)
    return Finding(limit=Limit(metric=metric, worse=0.01), whole=found, rounds=(found, found))


def test_the_more_is_tested_the_surer_a_failure_must_be() -> None:
    alone = judge([[found_of("p50", 0.02)]])
    among = judge([[found_of("p50", 0.02)], [found_of("p50", 0.9, 0.0)], [found_of("p99", 0.8, 0.0)]])
    assert alone[0][0].outcome == "fail"
    assert among[0][0].outcome == "inconclusive"


def test_what_has_no_p_value_takes_none_from_its_neighbours() -> None:
    ((size, slow),) = judge([[found_of("size", None, 0.0), found_of("p50", 0.001)]])
    assert (size.outcome, slow.outcome) == ("pass", "fail")


def test_a_failure_needs_a_second_round_that_agrees() -> None:
    slow, same = readings(replicates=replicates(0.05)), readings()
    ((alone,),) = judge([[finding(limits(["p50:1%"])[0], [slow])]])
    assert (alone.outcome, alone.confirmed) == ("inconclusive", None)
    both = one("p50", "1%", slow, slow)
    assert (both.outcome, both.confirmed) == ("fail", True)
    refuted = one("p50", "1%", slow, same)
    assert (refuted.outcome, refuted.confirmed) == ("inconclusive", False)
    assert one("p50", "1%", same, same).confirmed is None


def test_two_rounds_tell_more_than_one() -> None:
    """2 % in noise that hides it from one round: each is beyond the limit, only both are certain."""
    hazy = readings(replicates=replicates(0.025, noise=0.12, pairs=60))
    single = change("p50", [hazy])
    double = change("p50", [hazy, hazy])
    assert single.p_value is not None and double.p_value is not None
    assert double.p_value < single.p_value


def test_a_second_round_is_for_what_it_could_refute() -> None:
    def doubt(text: str, given: Readings) -> bool:
        return in_doubt([finding(limits([text])[0], [given])])

    assert not doubt("size:1%", readings(candidate_size_bytes=2000))
    assert not doubt("top1:-0.5pt", readings(answers=answers(lost=100)))
    assert doubt("rss:5%", readings(candidate_rss_bytes=200_000_000))
    assert doubt("p50:1%", readings(replicates=replicates(0.05)))
    assert not doubt("p50:1%", readings())


def test_memory_is_the_mean_of_the_rounds_and_calibration_gives_it_an_interval() -> None:
    rounds = [readings(candidate_rss_bytes=104_000_000), readings(candidate_rss_bytes=110_000_000)]
    plain = change("rss", rounds)
    assert (plain.candidate, plain.change, plain.ci95) == (107_000_000, 0.07, None)
    known = change("rss", rounds, spread=0.01, known_from=20)
    assert known.ci95 is not None
    assert known.ci95.high - known.ci95.low == pytest.approx(2 * 2.093 * 0.01 / 2**0.5, rel=1e-3)  # t of 19 degrees


def test_the_worst_outcome_is_the_whole_ones() -> None:
    assert worst(["pass", "inconclusive", "fail"]) == "fail"
    assert worst(["pass", "inconclusive"]) == "inconclusive"
    assert worst(["pass"]) == worst([]) == "pass"
