"""What a person sees on stderr while a run goes on."""

from collections.abc import Callable
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from mbbench.cli.progress import Display
from mbbench.events import Finished, Measuring, Working
from mbbench.result import Failure, Result


def console(*, terminal: bool) -> Console:
    return Console(file=StringIO(), force_terminal=terminal, width=80, color_system=None)


def written(to: Console) -> str:
    assert isinstance(to.file, StringIO)
    return to.file.getvalue()


def test_without_a_terminal_each_stage_is_one_plain_line(make_result: Callable[..., Result]) -> None:
    failure = Failure(cause="it [died]", remedy="free memory", exit_code=7)
    to = console(terminal=False)
    with Display(to) as display:
        for done in range(3):
            display(Working("training 0.5 MobileNet-128", done, 3))
        display(Working("exporting 0.5 MobileNet-128", 0, 1))
        display(Measuring(make_result().cell, 1, 2))
        display(Finished(make_result()))
        display(Finished(replace(make_result(), failure=failure)))
    assert written(to) == (
        "training 0.5 MobileNet-128 ...\n"
        "exporting 0.5 MobileNet-128 ...\n"
        "[1/2] measuring 0.5 MobileNet-128 on openvino ...\n"
        "failed: it [died]\n"
    )


def test_a_terminal_gets_a_bar_with_counts() -> None:
    to = console(terminal=True)
    with Display(to) as display:
        display.work("training", 0, 40)
        display.work("training", 30, 40, "loss 0.5")
    assert "training, loss 0.5" in written(to)
    assert "30/40" in written(to)


def test_details_make_no_new_lines() -> None:
    to = console(terminal=False)
    with Display(to) as display:
        for step in range(3):
            display.work("training", step, 3, f"loss {step}")
    assert written(to) == "training ...\n"


def test_nothing_is_drawn_while_a_child_measures(
    make_result: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr("rich.progress.Progress.start", lambda self: calls.append("draw"))
    monkeypatch.setattr("rich.progress.Progress.stop", lambda self: calls.append("still"))
    with Display(console(terminal=True)) as display:
        display(Working("training", 1, 2))
        display(Measuring(make_result().cell, 1, 1))
        assert calls == ["draw", "still"]
        display(Finished(make_result()))
    assert calls == ["draw", "still"]


def test_bars_end_when_the_work_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr("rich.progress.Progress.stop", lambda self: calls.append("still"))
    with pytest.raises(KeyboardInterrupt), Display(console(terminal=False)):
        raise KeyboardInterrupt
    to = console(terminal=True)
    with pytest.raises(KeyboardInterrupt), Display(to) as display:
        display.work("training", 1, 2)
        raise KeyboardInterrupt
    assert calls == ["still"]
