"""What a measured cell must satisfy: the precision it ran in (--require-effective) and its accuracy (--max-drop)."""

from __future__ import annotations

from mbbench.analysis.executed import fell_back
from mbbench.errors import RequirementError
from mbbench.result import Accuracy, ExecutedInfo, Failure, QuantizationInfo
from mbbench.spec import Cell, RunSpec


def unmet(
    spec: RunSpec,
    cell: Cell,
    quantization: QuantizationInfo | None,
    executed: ExecutedInfo | None,
    accuracy: Accuracy | None,
) -> Failure | None:
    """Return the failure of the first requirement that the cell does not meet, or None. Baselines have none."""
    if cell.role == "baseline":
        return None
    if spec.require_effective:
        kept_fp32 = () if quantization is None else quantization.kept_fp32
        reason = (
            "the backend does not report what it executed"
            if executed is None
            else fell_back(executed, cell.precision, kept_fp32)
        )
        if reason is not None:
            return _failure(
                f"not all of it ran in {cell.precision}: {reason}",
                "see `mbbench explain`, or leave out --require-effective",
            )
    if spec.max_drop is not None and accuracy is not None:
        lost, text = _lost(accuracy)
        if lost * 100 > spec.max_drop:
            return _failure(
                f"{text}, more than {spec.max_drop:g}",
                "add --accuracy-control, or fine-tune with `mbbench compress --qat`",
            )
    return None


def _failure(cause: str, remedy: str) -> Failure:
    return Failure(cause=cause, remedy=remedy, exit_code=RequirementError.exit_code)


def _lost(accuracy: Accuracy) -> tuple[float, str]:
    """Return the share of top-1 lost against fp32, and a sentence on it.

    Without labels, the share of answers that differ is the upper bound.
    """
    if accuracy.drop is None:
        lost, interval = 1 - accuracy.agreement, accuracy.agreement_ci95
        low, high = 100 - interval.high * 100, 100 - interval.low * 100
        return lost, f"without labels, {lost * 100:.2f} % [{low:.2f}, {high:.2f}] of the answers differ from fp32's"
    lost, interval = accuracy.drop.share, accuracy.drop.ci95
    low, high = interval.low * 100, interval.high * 100
    return lost, f"top-1 dropped by {lost * 100:.2f} points [{low:.2f}, {high:.2f}] against fp32"
