"""Cell options become a profile. `test_app` tests that Typer parses them."""

import inspect
from typing import Any, get_args, get_origin

import pytest

from mbbench.cli import inputs, options
from mbbench.errors import UsageError
from mbbench.profile import Profile


def make_command(*names: str, **fixed: Any) -> Any:
    """Return a command with the cell options `names` that returns the profile and the word it receives."""
    calls: list[tuple[Profile, str]] = []

    @options.cell_options(*names, **fixed)
    def command(profile: Profile, word: str = "none") -> None:
        """Summary of the command."""
        calls.append((profile, word))

    def call(**values: Any) -> tuple[Profile, str]:
        command(**dict.fromkeys(names) | {"profile": "default", "word": "none"} | values)
        return calls[-1]

    call.__signature__ = inspect.signature(command)  # type: ignore[attr-defined]
    call.__doc__ = command.__doc__
    return call


def test_a_command_lists_cell_options_then_profile_then_its_own_options() -> None:
    command = make_command("alpha", "threads", profile="ci")
    parameters = inspect.signature(command).parameters
    assert list(parameters) == ["alpha", "threads", "profile", "word"]
    assert (parameters["alpha"].default, parameters["profile"].default, parameters["word"].default) == (
        None, "ci", "none",
    )  # fmt: skip
    assert command.__doc__ == "Summary of the command."
    (_, alpha) = get_args(parameters["alpha"].annotation)
    assert alpha.metavar == "NUMBERS"


def test_options_set_fields_of_the_profile_and_its_settings() -> None:
    command = make_command("models", "alpha", "backend", "threads", "idle", "sustain", weights="random")
    profile, word = command(
        models="vgg16, mobilenet_v1", alpha="0.25-1+0.25", backend="all,torch", threads=2, idle="100ms", sustain="1m",
        word="hello",
    )  # fmt: skip
    assert word == "hello"
    assert (profile.model, profile.alpha, profile.backend, profile.weights) == (
        ("vgg16", "mobilenet_v1"), (0.25, 0.5, 0.75, 1.0), ("all", "torch"), "random",
    )  # fmt: skip
    assert (profile.settings.threads, profile.settings.idle_ms, profile.settings.sustain_s) == (2, 100.0, 60.0)


def test_scenario_all_selects_every_scenario() -> None:
    command = make_command("scenario", "streams", "bound")
    settings = command(scenario="all", streams=3, bound="2ms")[0].settings
    assert settings.scenarios == ("single-stream", "multi-stream", "offline", "server")
    assert (settings.streams, settings.bound_ms) == (3, 2.0)
    assert command(scenario="server,offline")[0].settings.scenarios == ("server", "offline")
    with pytest.raises(
        UsageError,
        match=r"unknown scenario: 'online'; did you mean offline. choose one of single-stream, .*, server, or all",
    ):
        command(scenario="online")


def test_absent_options_leave_the_profile_unchanged() -> None:
    profile, _ = make_command("model", "alpha", "res", "precision", "batch")()
    assert profile.description and (profile.alpha, profile.settings.batch) == ((1.0,), 1)
    assert make_command("model")(model="googlenet")[0].model == ("googlenet",)


def test_baselines_are_a_flag_and_named_by_another_option() -> None:
    command = make_command("baselines", "against")
    assert command()[0].baseline_families == ()
    assert command(baselines=True)[0].baseline_families == ("vgg16", "googlenet")
    assert command(against="alexnet, squeezenet1_0")[0].baseline_families == ("alexnet", "squeezenet1_0")
    assert command(baselines=True, against="alexnet")[0].baseline_families == ("alexnet",)
    assert command(profile="rigorous")[0].baseline_families == ("vgg16", "googlenet")
    assert command(profile="rigorous", baselines=False)[0].baseline_families == ()


@pytest.mark.parametrize(
    ("text", "expected"), [("128", (128,)), ("128, 160", (128, 160)), ("96-160+32,224", (96, 128, 160, 224))]
)
def test_numbers_are_lists_or_ranges(text: str, expected: tuple[int, ...]) -> None:
    assert make_command("res")(res=text)[0].res == expected


def test_a_range_stops_at_its_last_step_within_the_end() -> None:
    assert make_command("alpha")(alpha="0.1-0.45+0.1")[0].alpha == (0.1, 0.2, 0.3, 0.4)


@pytest.mark.parametrize("text", ["", "wide", "128-", "128-224", "128-224+0", "128-224+x"])
def test_malformed_numbers_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--res is not a list of numbers: .*; write it like --res 128,224 or 128-224"):
        make_command("res")(res=text)


def test_every_option_is_annotated_for_typer() -> None:
    assert all(get_origin(option.annotation) is not None for option in options._CELL_OPTIONS.values())


def test_preprocessing_options_are_parsed() -> None:
    command = make_command(*inputs.OPTIONS)
    profile, _ = command(mean="0.485, 0.456,0.406", std="1,1,1", crop=1.0, interpolation="bicubic", channels="bgr")
    assert (profile.mean, profile.std, profile.crop) == ((0.485, 0.456, 0.406), (1.0, 1.0, 1.0), 1.0)
    assert (profile.interpolation, profile.channels, profile.labels) == ("bicubic", "bgr", None)


@pytest.mark.parametrize("text", ["0.5", "0.5,0.5,x", "1,2,3,4", ""])
def test_a_mean_is_three_numbers(text: str) -> None:
    with pytest.raises(
        UsageError, match=f"--mean is not three numbers: {text}; write it like --mean 0.485,0.456,0.406"
    ):
        make_command("mean")(mean=text)
