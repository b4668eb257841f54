"""Progress on stderr: bars while preparing, one still line while a child measures."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mbbench.events import Event


class Display:
    """Call it with a run's events. On anything but a terminal it writes plain lines and no bars."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task: tuple[str, TaskID] | None = None
        self._last = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._still()

    def __call__(self, event: Event) -> None:
        from mbbench.events import Finished, Measuring, Working

        match event:
            case Working(what, done, total):
                self.work(what, done, total)
            case Measuring(cell, index, count, left_s):
                self._still()
                left = "" if left_s is None else f", {_about(left_s)} left"
                self._console.print(f"\\[{index}/{count}] measuring {cell.label}{left} ...", highlight=False)
            case Finished(result):
                self._still()
                if result.failure is not None:
                    self._console.print(f"failed: {result.failure.cause}", style="red", highlight=False, markup=False)

    def work(self, what: str, done: int, total: int, detail: str = "") -> None:
        """`detail` may change at every step; only a terminal shows it."""
        if not self._console.is_terminal:
            if what != self._last:
                self._console.print(f"{what} ...", highlight=False)
            self._last = what
            return
        if self._progress is None:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._progress.start()
        if self._task is None or self._task[0] != what:
            if self._task is not None:
                self._progress.remove_task(self._task[1])
            self._task = (what, self._progress.add_task(what, total=total))
        description = f"{what}, {detail}" if detail else what
        self._progress.update(self._task[1], completed=done, total=total, description=description)

    def _still(self) -> None:
        """Stop the thread that draws: nothing of the parent's may run while a child measures."""
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._task = None


def _about(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{round(seconds, -1):.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"


def display() -> Display:
    """Return a display on stderr."""
    return Display(Console(stderr=True))


def tell(text: str) -> None:
    """A line on stderr, as it is."""
    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)
