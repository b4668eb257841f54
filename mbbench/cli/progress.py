"""Progress on stderr: a bar during preparation, one unchanging line while a child process measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mbbench.cli.interruption import interruption
from mbbench.errors import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from mbbench.events import Event
    from mbbench.result import Result

_LOG_INTERVAL_S = 10.0


class Display:
    """A callable that shows the events of a run: bars in a terminal, plain lines elsewhere.

    What `optional_backends` do not support is shown as such, once for each reason, and not as a failure.
    """

    def __init__(
        self, console: Console, optional_backends: Collection[str] = (), clock: Callable[[], float] = monotonic
    ) -> None:
        self._console = console
        self._clock = clock
        self._done = 0
        self._began = (0, 0.0)  # steps done and seconds when the step began
        self._logged_s = 0.0
        self._optional_backends = optional_backends
        self._unsupported_lines: set[str] = set()
        self._stated: set[str] = set()
        self._progress: Progress | None = None
        self._task: tuple[str, TaskID] | None = None
        self._last_line = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_drawing()

    def __call__(self, event: Event) -> None:
        from mbbench.events import Finished, Measuring, Preparing, Stated

        if not (isinstance(event, Finished) and _is_worth_storing(event.result)):
            interruption.check()
        match event:
            case Preparing(what, _, 0):
                self._stop_drawing()
                self._print_once(what)
            case Preparing(what, done, total):
                self.update(what, done, total)
            case Stated(text):
                if text not in self._stated:
                    self._print(text)
                self._stated.add(text)
            case Measuring(cell, index, count, left_s):
                self._stop_drawing()
                left = "" if left_s is None else f", {_rough_duration(left_s)} left"
                self._print(f"[{index}/{count}] measuring {cell.label}{left} ...")
            case Finished(result):
                self._stop_drawing()
                self._last_line = ""
                self._show_figures(result)
                self._show_failure(result)

    def update(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Show `done` of `total` steps of `what`. Only a terminal shows `detail`, which may change at every step."""
        interruption.check()
        if not self._console.is_terminal:
            self._log(what, done, total)
            return
        if self._progress is None:
            self._progress = self._start_drawing()
        if self._task is None or self._task[0] != what:
            if self._task is not None:
                self._progress.remove_task(self._task[1])
            self._task = (what, self._progress.add_task(visible(what), total=total))
        description = visible(f"{what}, {detail}" if detail else what)
        self._progress.update(self._task[1], completed=done, total=total, description=description)

    def _log(self, what: str, done: int, total: int) -> None:
        """Print a line when a step begins, and at most every ten seconds how far it is."""
        now_s = self._clock()
        if what != self._last_line or done < self._done:
            self._began, self._logged_s = (done, now_s), now_s
            self._last_line = ""
        self._done = done
        self._print_once(what)
        first, start_s = self._began
        if now_s - self._logged_s >= _LOG_INTERVAL_S and first < done < total:
            left_s = (now_s - start_s) / (done - first) * (total - done)
            self._print(f"{what}: {done} of {total}, {_rough_duration(left_s)} left")
            self._logged_s = now_s

    def _print_once(self, what: str) -> None:
        """Print a line unless it was the last one."""
        if what != self._last_line:
            self._print(f"{what} ...")
        self._last_line = what

    def _print(self, text: str, style: str = "") -> None:
        """Print a line; in a terminal it is broken between words."""
        from mbbench.report.formats import layout

        width = self._console.width if self._console.is_terminal else None
        for line in layout.wrap(visible(text), width):
            self._console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)

    def _show_figures(self, result: Result) -> None:
        """Print the cell's main figures in a line: a run of many cells takes minutes until its report."""
        from mbbench.report import units

        latency, accuracy, peak = result.measured.latency, result.measured.accuracy, result.peak_rss_bytes()
        if latency is None or result.failure is not None:
            return
        figures = [units.milliseconds(latency.median_ms)]
        if result.measured.throughput is not None:
            figures.append(units.number(result.measured.throughput.images_per_s, "images/s"))
        if peak is not None:
            figures.append(units.megabytes(peak))
        if accuracy is not None and accuracy.top1 is not None:
            figures.append(f"top-1 {units.percent(accuracy.top1)}")
        self._print(f"{result.cell.label}: {', '.join(figures)}")

    def _show_failure(self, result: Result) -> None:
        from mbbench.run import is_unsupported

        if result.failure is None:
            return
        line, style = f"failed: {result.failure.cause}", "red"
        if is_unsupported(result, self._optional_backends):
            line, style = f"not supported: {result.cell.backend} {result.cell.precision}: {result.failure.cause}", ""
            if line in self._unsupported_lines:
                return
            self._unsupported_lines.add(line)
        self._print(line, style)

    def _start_drawing(self) -> Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        progress.start()
        return progress

    def _stop_drawing(self) -> None:
        """Stop the drawing thread: no thread of the parent may run while a child measures."""
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._task = None


def _is_worth_storing(result: Result) -> bool:
    """Return whether the result is of a measurement, not the failure of a library that swallowed an interruption."""
    return result.failure is None or result.failure.is_interruption


def _rough_duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{math.ceil(seconds)} s" if seconds < 10 else f"{round(seconds, -1):.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"


def stderr_display(optional_backends: Collection[str] = ()) -> Display:
    """Return a display on stderr."""
    from rich.console import Console

    return Display(Console(stderr=True), optional_backends)


def print_status(text: str) -> None:
    """Print `text` on stderr, without markup, colors or wrapping."""
    from rich.console import Console

    Console(stderr=True).print(visible(text), highlight=False, markup=False, soft_wrap=True)
