"""What a cell was asked to keep besides being measured: the precision it runs in, and its accuracy."""

from __future__ import annotations

from dataclasses import replace

from mbbench import audit
from mbbench.result import Accuracy, Failure, Result
from mbbench.spec import RunSpec


def judge(spec: RunSpec, result: Result) -> Result:
    """`result`, failed where it was measured to its end and does not keep a promise; baselines are held to none."""
    if result.cell.role == "baseline" or result.failure is not None:
        return result
    return replace(result, failure=_broken(spec, result))


def _broken(spec: RunSpec, result: Result) -> Failure | None:
    if spec.require_effective:
        kept = result.quantization.kept_fp32 if result.quantization is not None else ()
        reason = (
            "the backend does not tell what it executed"
            if result.executed is None
            else audit.fell_back(result.executed, result.cell.precision, kept)
        )
        if reason is not None:
            cause = f"not all of it ran in {result.cell.precision}: {reason}"
            return Failure(cause=cause, remedy="see `mbbench explain`, or leave out --require-effective", exit_code=5)
    accuracy = result.measured.accuracy
    if spec.max_drop is not None and accuracy is not None:
        lost, text = _lost(accuracy)
        if lost * 100 > spec.max_drop:
            remedy = "add --accuracy-control, or fine-tune with `mbbench compress --qat`"
            return Failure(cause=f"{text}, more than {spec.max_drop:g}", remedy=remedy, exit_code=5)
    return None


def _lost(accuracy: Accuracy) -> tuple[float, str]:
    """The share of top-1 lost against fp32, in words too; without labels no more can be lost than answers differ."""
    if accuracy.drop is None:
        lost, interval = 1 - accuracy.agreement, accuracy.agreement_ci95
        low, high = 100 - interval.high * 100, 100 - interval.low * 100
        return lost, f"without labels, {lost * 100:.2f} % [{low:.2f}, {high:.2f}] of the answers differ from fp32's"
    lost, interval = accuracy.drop.share, accuracy.drop.ci95
    low, high = interval.low * 100, interval.high * 100
    return lost, f"top-1 dropped by {lost * 100:.2f} points [{low:.2f}, {high:.2f}] against fp32"
