"""`mbbench fit` and `sweep --predict` end to end, and what they refuse."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mbbench import run, store
from mbbench.cli import fit as fit_command
from mbbench.errors import BackendError, CellsFailedError, MbbenchError, RequirementError
from mbbench.fit.search import Fit
from mbbench.result import Failure
from mbbench.spec import Cell, ModelSpec

Invoke = Callable[..., tuple[int, str, str]]
GRID = ("--alpha", "0.125-0.25+0.125", "--res", "32,64", "--backend", "onnxruntime", "--max-cells", "5")


@pytest.fixture
def invoke(invoke: Invoke) -> Invoke:
    """Return a function that runs `mbbench fit` in an empty folder with short timing, in 80 columns."""
    Path("fast.toml").write_text(
        "images = 20\n[settings]\nmin_samples = 20\nmin_s = 0.01\nmax_s = 0.2\n"
        "warmup_max_s = 0.1\nthroughput_s = 0.05\nbulk_batch = 8\n"
    )

    def call(*arguments: str, command: str = "fit") -> tuple[int, str, str]:
        profile = () if command == "choose" else ("--profile", "fast.toml")
        return invoke(command, *profile, *arguments)

    return call


def test_the_search_stores_what_it_measures_and_goes_on_there(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = invoke(*GRID, "--max-size", "1MB")
    assert (code, err.count("measuring 0.")) == (0, 4)
    assert "Use 0.25 MobileNet-64 on onnxruntime: " in out and "It was measured." in out
    assert "4 of 4 networks measured; the border's p99 is certain." in out
    stored = store.read(Path("reports/results.jsonl"))
    assert sorted((r.cell.model.alpha, r.cell.model.resolution) for r in stored) == [
        (0.125, 32), (0.125, 64), (0.25, 32), (0.25, 64),
    ]  # fmt: skip

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(run, "run", refuse)
    code, out, _ = invoke(*GRID, "--max-size", "500kB", "--format", "json")
    (setup,) = json.loads(out)
    assert (code, setup["reused"], setup["measured"], setup["pick"]["alpha"]) == (0, 4, 4, 0.125)
    assert {cell["known"] for cell in setup["cells"]} == {"measured"}
    # Other settings are another setup: nothing is reused.
    with pytest.raises(AssertionError, match="measured again"):
        invoke(*GRID, "--max-size", "500kB", "--batch", "2")


def test_nothing_within_the_limits_is_exit_5_after_the_table(invoke: Invoke) -> None:
    code, out, err = invoke(*GRID, "--max-size", "5kB")
    assert code == 5 and "No network is within the limits." in out
    assert err.endswith("error: no network is within the limits; relax a limit, or give smaller --alpha and --res\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no cost is limited; add --max-p99, --max-size, --max-rss or --max-added-rss"),
        (("--min-top1", "60"), "no cost is limited; add --max-p99, --max-size, --max-rss or --max-added-rss"),
        (("--max-p99", "5"), "--max-p99 is not a time: '5'; write it like 100ms, 90s, 10m or 1h"),
        (("--max-p99", "5ms", "--alpha", "wide"), "--alpha is not a list of numbers: wide; write it like"),
        (("--max-p99", "5ms", "--res", "16"), "--res of MobileNet is out of range: 16 pixels; give 32 to 2048 pixels"),
        (("--max-p99", "5ms", "--max-cells", "4"), "--max-cells is too low: 4; give at least 5"),
    ],
)
def test_a_mistake_is_one_line(invoke: Invoke, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = invoke("--backend", "onnxruntime", *arguments)
    assert (code, out) == (2, "")
    assert f"error: {message}" in err


FAILURE = Failure(cause="no driver was found", remedy="install it", exit_code=6)


@pytest.mark.parametrize(
    ("failures", "optional", "error"),
    [
        ({"a": None, "b": FAILURE}, ("b",), RequirementError),  # nothing fits, since no fit has a pick here
        ({"a": None, "b": FAILURE}, (), CellsFailedError),
        ({"a": FAILURE, "b": FAILURE}, ("a", "b"), BackendError),
        ({"a": None, "b": replace(FAILURE, exit_code=1)}, ("b",), CellsFailedError),
    ],
)
def test_what_all_lists_may_be_unsupported(
    failures: dict[str, Failure | None], optional: tuple[str, ...], error: type[MbbenchError]
) -> None:
    fits = {
        Cell(model=ModelSpec(), role="subject", weights="random", backend=name, device=""): Fit(
            (), (), None, None, 0, failure
        )
        for name, failure in failures.items()
    }
    with pytest.raises(error):
        fit_command._raise_for_failures(fits, optional)


def test_a_backend_that_is_missing_fails(invoke: Invoke) -> None:
    code, _, err = invoke("--backend", "no-such", "--max-size", "1MB")
    assert code == 6 and "error: unknown backend: 'no-such'; choose an installed backend" in err


def test_a_sweep_measures_some_networks_and_predicts_the_others(invoke: Invoke) -> None:
    grid = ("--alpha", "0.125,0.25,0.375", "--res", "32,64", "--backend", "onnxruntime", "--weights", "random")
    code, out, _ = invoke(*grid, "--predict", "5", command="sweep")
    assert code == 0
    stored = {(r.cell.model.alpha, r.cell.model.resolution) for r in store.read(Path("reports/results.jsonl"))}
    predicted = {(alpha, side) for alpha in (0.125, 0.25, 0.375) for side in (32, 64)} - stored
    assert len(stored) == 5 and len(predicted) == 1 and out.count("≈") == 2  # the cell and its note
    assert "predicted from the 5 measured networks" in out
    # What was predicted is no result: `choose` does not see it.
    code, out, _ = invoke("--max-size", "1GB", "--format", "json", command="choose")
    assert len(json.loads(out)) == 5
    code, _, err = invoke("--predict", "4", *grid, command="sweep")
    assert (code, err) == (2, "error: --predict is out of range: 4 networks; give 5 to 10000 networks\n")
