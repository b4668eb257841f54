"""What a measured cell must satisfy: the precision it ran in (--require-effective) and its accuracy (--max-drop)."""

from __future__ import annotations

from mbbench.analysis.executed import describe_fallback
from mbbench.errors import RequirementError
from mbbench.result import Accuracy, ExecutedInfo, Failure, QuantizationInfo
from mbbench.spec import Cell, RunSpec


def first_failure(
    spec: RunSpec,
    cell: Cell,
    quantization: QuantizationInfo | None,
    executed: ExecutedInfo | None,
    accuracy: Accuracy | None,
) -> Failure | None:
    """Return the failure of the first requirement that the cell does not meet, or None.

    Baseline cells have no requirements. Layers that quantization left in fp32 on purpose are allowed to run in fp32.
    """
    if cell.role == "baseline":
        return None
    if spec.require_effective:
        allowed_fp32 = () if quantization is None else quantization.kept_fp32
        reason = (
            "the backend does not report what it executed"
            if executed is None
            else describe_fallback(executed, cell.precision, allowed_fp32)
        )
        if reason is not None:
            return _failure(
                f"the cell did not run entirely in {cell.precision}: {reason}",
                "see `mbbench explain`, or leave out --require-effective",
            )
    if spec.max_drop is not None and accuracy is not None:
        loss, description = _accuracy_loss(accuracy)
        if loss * 100 > spec.max_drop:
            return _failure(
                f"{description}, more than --max-drop {spec.max_drop:g}",
                "add --accuracy-control, or fine-tune with `mbbench compress --qat`",
            )
    return None


def _failure(cause: str, remedy: str) -> Failure:
    return Failure(cause=cause, remedy=remedy, exit_code=RequirementError.exit_code)


def _accuracy_loss(accuracy: Accuracy) -> tuple[float, str]:
    """Return the share of top-1 lost against fp32 (0 to 1) and a description of it.

    Without labels, the share of answers that differ from fp32's is an upper bound of the loss.
    """
    if accuracy.drop is None:
        loss, interval = 1 - accuracy.agreement, accuracy.agreement_ci95
        low, high = 100 - interval.high * 100, 100 - interval.low * 100
        return loss, f"without labels, {loss * 100:.2f} % [{low:.2f}, {high:.2f}] of the answers differ from fp32's"
    loss, interval = accuracy.drop.share, accuracy.drop.ci95
    low, high = interval.low * 100, interval.high * 100
    return loss, f"top-1 dropped by {loss * 100:.2f} points [{low:.2f}, {high:.2f}] compared with fp32"
