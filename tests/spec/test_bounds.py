import math
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

import pytest

from mbbench.errors import UsageError
from mbbench.profile import Profile, parse
from mbbench.spec import Settings
from mbbench.spec.bounds import BOUNDS, PROFILE, SETTINGS, Bound, require_countable


@pytest.mark.parametrize(
    ("bound", "text", "accepted", "refused"),
    [
        (Bound("--n", 1, 9), "1 to 9", (1, 9), (0, 10, -1, math.nan, math.inf, 10**400)),
        (Bound("--n", 1, 9, " images"), "1 to 9 images", (5,), (0,)),
        (Bound("--n", 0, 8, above=True), "more than 0 and at most 8", (0.001, 8), (0, 8.1, -math.inf, math.nan)),
        (Bound("--n", 0, 1, "%", above=True, below=True), "more than 0% and less than 1%", (0.5,), (0, 1)),
        (Bound("--n", 1.5, 2, "ms", below=True), "at least 1.5ms and less than 2ms", (1.5,), (2, 1.4)),
    ],
)
def test_a_bound_says_which_numbers_it_holds(
    bound: Bound, text: str, accepted: tuple[float, ...], refused: tuple[float, ...]
) -> None:
    assert bound.range == text
    for value in accepted:
        bound.require(value)
    for value in refused:
        with pytest.raises(UsageError, match=rf"^--n is out of range: .*; give {text}$"):
            bound.require(value)


def test_a_refusal_has_the_value_with_its_unit_or_as_it_was_written() -> None:
    bound = Bound("--n", 1, 9, "s", "such as 5s")
    with pytest.raises(UsageError) as caught:
        bound.require(10.25)
    assert str(caught.value) == "--n is out of range: 10.25s; give 1s to 9s, such as 5s"
    with pytest.raises(UsageError, match=r"^--n is out of range: 1h; give 1s to 9s"):
        bound.require(3600, "1h")


def number_fields(kind: type) -> set[str]:
    """Return the fields that hold a number or None."""
    hints = get_type_hints(kind)
    unions = {
        name: get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,) for name, hint in hints.items()
    }
    return {name for name, kinds in unions.items() if {int, float} & {*kinds}}


def test_every_number_of_the_settings_and_of_a_profile_has_a_bound() -> None:
    assert number_fields(Settings) == set(SETTINGS)
    assert number_fields(Profile) - {"crop"} == set(PROFILE)  # `Preprocessing` checks `crop`


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 0])
def test_a_profile_and_an_option_are_refused_in_the_same_words(name: str, value: float) -> None:
    with pytest.raises(UsageError) as from_settings:
        Settings(**{name: value})  # type: ignore[arg-type]
    assert str(from_settings.value).startswith(f"{BOUNDS[name].name} is out of range: ")
    if isinstance(value, int):
        with pytest.raises(UsageError) as from_profile:
            parse(f"[settings]\n{name} = {value}\n", "mine.toml")
        words = str(from_settings.value)
        assert str(from_profile.value) in (f"mine.toml: {words}", f"mine.toml: {words.replace('0.0', '0')}")


@pytest.mark.parametrize("value", ["nan", "-1.0", "inf", "100.5"])
def test_a_profiles_largest_drop_is_bounded(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(f"max_drop = {value}", "mine.toml")
    shown = f"{float(value):g}"
    assert str(caught.value) == f"mine.toml: --max-drop is out of range: {shown} points; give 0 to 100 points"


def test_counts_up_to_10000_are_accepted() -> None:
    require_countable("too many", 10_000)
    with pytest.raises(UsageError, match=r"^too many: 10001; give at most 10000, with fewer values or a larger step$"):
        require_countable("too many", 10_001)
