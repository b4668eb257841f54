"""Shared options become a profile; that Typer reads them is tested with the commands."""

import inspect
from typing import Any, get_args, get_origin

import pytest

from mbbench.cli import options
from mbbench.errors import UsageError
from mbbench.profile import Profile


def command(*names: str, **settled: Any) -> Any:
    """A command with these options that returns what it was given."""
    found: list[tuple[Profile, str]] = []

    @options.about_cells(*names, **settled)
    def own(profile: Profile, word: str = "none") -> None:
        """What it does."""
        found.append((profile, word))

    def called(**given: Any) -> tuple[Profile, str]:
        own(**dict.fromkeys(names) | {"profile": "default", "word": "none"} | given)
        return found[-1]

    called.__signature__ = inspect.signature(own)  # type: ignore[attr-defined]
    called.__doc__ = own.__doc__
    return called


def test_a_command_shows_shared_options_then_the_profile_then_its_own() -> None:
    shown = command("alpha", "threads", profile="ci")
    parameters = inspect.signature(shown).parameters
    assert list(parameters) == ["alpha", "threads", "profile", "word"]
    assert (parameters["alpha"].default, parameters["profile"].default, parameters["word"].default) == (
        None, "ci", "none",
    )  # fmt: skip
    assert shown.__doc__ == "What it does."
    (_, alpha) = get_args(parameters["alpha"].annotation)
    assert alpha.metavar == "NUMBERS"


def test_options_land_where_the_profile_has_them() -> None:
    called = command("models", "alpha", "backend", "threads", "idle", "sustain", weights="random")
    profile, word = called(
        models="vgg16, mobilenet_v1", alpha="0.25-1+0.25", backend="all,torch", threads=2, idle="100ms", sustain="1m",
        word="hello",
    )  # fmt: skip
    assert word == "hello"
    assert (profile.model, profile.alpha, profile.backend, profile.weights) == (
        ("vgg16", "mobilenet_v1"), (0.25, 0.5, 0.75, 1.0), ("all", "torch"), "random",
    )  # fmt: skip
    assert (profile.settings.threads, profile.settings.idle_ms, profile.settings.sustain_s) == (2, 100.0, 60.0)


def test_all_scenarios_can_be_asked_for_at_once() -> None:
    called = command("scenario", "streams", "bound")
    settings = called(scenario="all", streams=3, bound="2ms")[0].settings
    assert settings.scenarios == ("single-stream", "multi-stream", "offline", "server")
    assert (settings.streams, settings.bound_ms) == (3, 2.0)
    assert called(scenario="server,offline")[0].settings.scenarios == ("server", "offline")
    with pytest.raises(UsageError, match="unknown scenario 'online'; choose of single-stream, multi-stream"):
        called(scenario="online")


def test_silence_leaves_the_profile_as_it_is() -> None:
    profile, _ = command("model", "alpha", "res", "precision", "batch")()
    assert profile.description and (profile.alpha, profile.settings.batch) == ((1.0,), 1)
    assert command("model")(model="googlenet")[0].model == ("googlenet",)


@pytest.mark.parametrize(
    ("text", "expected"), [("128", (128,)), ("128, 160", (128, 160)), ("96-160+32,224", (96, 128, 160, 224))]
)
def test_numbers_are_listed_or_spread(text: str, expected: tuple[int, ...]) -> None:
    assert command("res")(res=text)[0].res == expected


def test_the_end_of_a_range_need_not_be_on_its_steps() -> None:
    assert command("alpha")(alpha="0.1-0.45+0.1")[0].alpha == (0.1, 0.2, 0.3, 0.4)


@pytest.mark.parametrize("text", ["", "wide", "128-", "128-224", "128-224+0", "128-224+x"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="does not read as numbers; write them like --res 128,224 or 128-224"):
        command("res")(res=text)


def test_every_option_is_annotated_for_typer() -> None:
    assert all(get_origin(about.annotation) is not None for about in options._OPTIONS.values())
