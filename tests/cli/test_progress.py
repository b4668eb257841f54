"""The progress that a run shows on stderr."""

from collections.abc import Callable
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from mbbench.cli.progress import Display
from mbbench.events import Finished, Measuring, Preparing, Stated
from mbbench.result import Failure, Result


def make_console(*, terminal: bool) -> Console:
    return Console(file=StringIO(), force_terminal=terminal, width=80, color_system=None)


def written(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_without_a_terminal_each_stage_prints_one_plain_line(make_result: Callable[..., Result]) -> None:
    failure = Failure(cause="it [died]", remedy="free memory", exit_code=7)
    console = make_console(terminal=False)
    with Display(console) as display:
        for done in range(3):
            display(Preparing("training 0.5 MobileNet-128", done, 3))
        display(Preparing("exporting 0.5 MobileNet-128", 0, 1))
        display(Measuring(make_result().cell, 1, 2))
        display(Finished(make_result()))
        display(Finished(replace(make_result(), failure=failure)))
    assert written(console) == (
        "training 0.5 MobileNet-128 ...\n"
        "exporting 0.5 MobileNet-128 ...\n"
        "[1/2] measuring 0.5 MobileNet-128 on openvino ...\n"
        "0.5 MobileNet-128 on openvino: 0.504 ms, 1600 images/s, 125 MB, top-1 99.0 %\n"
        "failed: it [died]\n"
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_names_are_neither_markup_nor_control_characters(make_result: Callable[..., Result], terminal: bool) -> None:
    console = make_console(terminal=terminal)
    name = "[/x][red]\x1b[31m"
    result = replace(make_result(backend=name), failure=Failure(cause=name, remedy=name, exit_code=7))
    with Display(console) as display:
        for event in (
            Preparing(name, 0, 3),
            Preparing(name, 1, 3),
            Stated(name),
            Measuring(result.cell, 1, 1),
            Finished(result),
        ):
            display(event)
    text = written(console)
    shown = r"[/x][red]\x1b[31m"
    for line in (f"{shown} ...", shown, f"[1/1] measuring 0.5 MobileNet-128 on {shown} ...", f"failed: {shown}"):
        assert f"{line}\n" in text
    assert "\x1b[31m" not in text


def test_a_log_says_every_ten_seconds_how_far_a_step_is() -> None:
    console = make_console(terminal=False)
    times = iter([0.0, 4.0, 10.0, 19.0, 20.0, 30.0, 40.0])
    with Display(console, clock=lambda: next(times)) as display:
        for done in range(6):
            display(Preparing("training", done, 5))
        display(Preparing("exporting", 1, 9))
    assert written(console) == (
        "training ...\ntraining: 2 of 5, 20 s left\ntraining: 4 of 5, 5 s left\nexporting ...\n"
    )


def test_a_step_that_comes_again_is_timed_from_its_second_beginning() -> None:
    console = make_console(terminal=False)
    times = iter([0.0, 100.0, 200.0, 210.0])
    with Display(console, clock=lambda: next(times)) as display:
        for done in (0, 2, 0, 1):
            display(Preparing("training", done, 2))
    assert written(console) == "training ...\ntraining ...\ntraining: 1 of 2, 10 s left\n"


@pytest.mark.parametrize(("terminal", "break_"), [(True, "\n"), (False, " ")])
def test_a_stage_without_a_count_is_printed_once_and_broken_between_words(terminal: bool, break_: str) -> None:
    console = make_console(terminal=terminal)
    with Display(console) as display:
        for _ in range(3):
            display(Preparing(f"weights [b]mine.pth: {60 * 'x'}", 0, 0))
    assert written(console) == f"weights [b]mine.pth:{break_}{60 * 'x'} ...\n"


def test_what_an_optional_backend_does_not_support_is_shown_once_for_each_reason(
    make_result: Callable[..., Result],
) -> None:
    cause = f"no native [int8] on {60 * 'x'} here"  # longer than a line
    unsupported = Failure(cause=cause, remedy="use fp32", exit_code=6)
    console = make_console(terminal=False)
    with Display(console, ("openvino",)) as display:
        for scale in (1.0, 2.0):
            display(Finished(make_result(scale=scale, failure=unsupported)))
        display(Finished(make_result(backend="torch", failure=unsupported)))
        display(Finished(make_result(failure=replace(unsupported, exit_code=7))))
    assert written(console) == (f"not supported: openvino fp32: {cause}\nfailed: {cause}\nfailed: {cause}\n")


def test_a_terminal_shows_a_bar_with_counts_and_details() -> None:
    console = make_console(terminal=True)
    with Display(console) as display:
        display.update("training", 0, 40)
        display.update("training", 30, 40, "loss 0.5")
    assert "training, loss 0.5" in written(console)
    assert "30/40" in written(console)


def test_a_changing_detail_prints_no_new_line() -> None:
    console = make_console(terminal=False)
    with Display(console) as display:
        for step in range(3):
            display.update("training", step, 3, f"loss {step}")
    assert written(console) == "training ...\n"


def test_nothing_is_drawn_while_a_child_measures(
    make_result: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr("rich.progress.Progress.start", lambda self: calls.append("start"))
    monkeypatch.setattr("rich.progress.Progress.stop", lambda self: calls.append("stop"))
    with Display(make_console(terminal=True)) as display:
        display(Preparing("training", 1, 2))
        display(Measuring(make_result().cell, 1, 1))
        assert calls == ["start", "stop"]
        display(Finished(make_result()))
    assert calls == ["start", "stop"]


def test_nothing_is_drawn_while_a_child_measures_the_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr("rich.progress.Progress.start", lambda self: calls.append("start"))
    monkeypatch.setattr("rich.progress.Progress.stop", lambda self: calls.append("stop"))
    console = make_console(terminal=True)
    with Display(console) as display:
        display(Preparing("training", 1, 2))
        display(Preparing("measuring the machine's ceilings", 0, 0))
        assert calls == ["start", "stop"]
    assert written(console).endswith("measuring the machine's ceilings ...\n")


def test_an_interrupt_stops_the_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr("rich.progress.Progress.stop", lambda self: calls.append("stop"))
    with pytest.raises(KeyboardInterrupt), Display(make_console(terminal=False)):
        raise KeyboardInterrupt
    console = make_console(terminal=True)
    with pytest.raises(KeyboardInterrupt), Display(console) as display:
        display.update("training", 1, 2)
        raise KeyboardInterrupt
    assert calls == ["stop"]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_fact_is_printed_once(terminal: bool) -> None:
    console = make_console(terminal=terminal)
    with Display(console) as display:
        for _ in range(2):
            display(Stated("nette: 10 of 10 folders are [ImageNet] classes"))
    assert written(console) == "nette: 10 of 10 folders are [ImageNet] classes\n"
