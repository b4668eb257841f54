"""What `mbbench compress` did to top-1: measured on the test images, and judged by the interval of the change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbbench import stats
from mbbench.errors import RequirementError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mbbench.compress.pipeline import Request

_LOSS = 0.01  # of top-1 that compression may cost even where the interval shows it


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many of the `images` the network classified correctly before and after, and only before or only after."""

    images: int
    before: int
    after: int
    only_before: int
    only_after: int

    @classmethod
    def of(cls, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Outcome:
        """Count from booleans (N,) for the same images: whether the network was right."""
        lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
        return cls(len(before), int(before.sum()), int(after.sum()), lost, gained)

    @property
    def change(self) -> float:
        """The change of top-1, -1 to 1."""
        return (self.after - self.before) / self.images

    @property
    def interval(self) -> stats.Interval:
        """The 95 % interval of the change, paired by image."""
        return stats.paired_interval(self.only_after, self.only_before, self.images)

    @property
    def is_worse(self) -> bool:
        """Whether top-1 fell by more than a point, and by more than the interval allows for chance."""
        return self.interval.high < 0 and self.change < -_LOSS

    def describe(self) -> str:
        """Return `top-1 52.5 % [37.5, 67.1] -> 95.0 % [83.5, 98.6], +42.5 points [24.7, 56.2]`."""
        shares = [describe_top1(correct, self.images) for correct in (self.before, self.after)]
        return f"top-1 {shares[0]} -> {shares[1]}, {self._points()}"

    def require_no_loss(self, request: Request) -> None:
        """Raise `RequirementError` if top-1 became worse (`is_worse`), with what to try for this request."""
        if self.is_worse:
            raise RequirementError(f"top-1 is worse than before compression: {self._points()}", _remedy(request))

    def _points(self) -> str:
        low, high = self.interval.low * 100, self.interval.high * 100
        return f"{self.change * 100:+z.1f} points [{low:+z.1f}, {high:+z.1f}]"


def describe_top1(correct: int, images: int) -> str:
    """Return the share of correct images with its 95 % interval: `52.5 % [37.5, 67.1]`."""
    from mbbench.report import units

    return units.percent(correct / images, stats.wilson_interval(correct, images))


def _remedy(request: Request) -> str:
    """Return what to try if the request made a network worse."""
    remedies = ["more images"]
    if request.mult_adds is not None:
        remedies.append("a lower --prune")
    if request.max_latency_ms is not None:
        remedies.append("a higher --max-latency")
    if request.teacher is not None:
        remedies.append("a better --teacher")
    if len(remedies) > 1:
        remedies.append("more --epochs")
    *others, last = [*remedies, "leave out --qat"] if request.qat else remedies
    return f"give {', '.join(others)}, or {last}"
