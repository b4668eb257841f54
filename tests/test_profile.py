from pathlib import Path

import pytest

from mbbench import profile
from mbbench.errors import UsageError
from mbbench.spec import Settings

SHIPPED = ("ci", "default", "edge", "quick", "reference", "rigorous")


def test_the_shipped_profiles_are_all_there_and_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert profile.names() == SHIPPED
    for name in SHIPPED:
        assert profile.load(name).description


def test_the_default_profile_is_the_defaults() -> None:
    loaded = profile.load("default")
    assert loaded.settings == Settings()
    assert (loaded.model, loaded.alpha, loaded.res, loaded.backend) == (
        ("mobilenet_v1",),
        (1.0,),
        (224,),
        ("openvino",),
    )


def test_a_profile_in_the_working_folder_wins_over_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "quick.toml").write_text("alpha = 0.33\n")
    monkeypatch.chdir(tmp_path)
    assert profile.load("quick").alpha == (0.33,)


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('backend = ["torch", "openvino"]\nimages = 5\n[settings]\nthreads = 2\n')
    loaded = profile.load(str(path))
    assert (loaded.backend, loaded.images, loaded.settings.threads) == (("torch", "openvino"), 5, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alpah = 0.5", "p has an unknown key 'alpah'; did you mean alpha?"),
        ("[settings]\nthread = 2", "p [settings] has an unknown key 'thread'; did you mean threads?"),
        ("zzz = 1", "p has an unknown key 'zzz'; known keys: description, model,"),
        ("alpha = ", "p is not TOML: Invalid value"),
        ('alpha = "wide"', "p: Expected `float`, got `str` - at `$.alpha[0]`; mend that value"),
        ("[settings]\nthreads = 0", "threads is 0; it counts something"),
    ],
)
def test_a_wrong_profile_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        profile.parse(text, "p")
    assert str(caught.value).startswith(message)


def test_an_unknown_name_lists_the_profiles() -> None:
    with pytest.raises(UsageError, match="choose one of ci, default, edge, quick, reference, rigorous"):
        profile.load("fast")


def test_an_unreadable_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the profile"):
        profile.load(str(tmp_path / "none.toml"))


def test_the_command_line_wins_and_silence_does_not() -> None:
    base = profile.parse("alpha = 0.25\nres = 96\n[settings]\nthreads = 2\n", "p")
    changed = profile.override(base, {"threads": None, "batch": 4}, {"alpha": None, "res": (128,), "baselines": False})
    assert (changed.alpha, changed.res, changed.settings.threads, changed.settings.batch) == ((0.25,), (128,), 2, 4)


def test_one_alpha_needs_no_brackets_and_several_have_them() -> None:
    grid = profile.parse("alpha = [0.25, 1.0]\nres = 128\n", "p")
    assert (grid.alpha, grid.res) == ((0.25, 1.0), (128,))
    assert [model.label for model in grid.models] == ["0.25 MobileNet-128", "1.0 MobileNet-128"]


def test_of_several_families_alpha_and_variant_are_mobilenets() -> None:
    grid = profile.parse('model = ["vgg16", "mobilenet_v1"]\nalpha = [0.25, 0.5]\nvariant = "shallow"\n', "p")
    labels = ["VGG16-224", "Shallow 0.25 MobileNet-224", "Shallow 0.5 MobileNet-224"]
    assert [model.label for model in grid.models] == labels


def test_a_profiles_alpha_is_not_anothers_networks() -> None:
    base = profile.parse('alpha = 0.25\nvariant = "shallow"\n', "p")
    changed = profile.override(base, {}, {"model": ("vgg16",)})
    assert (changed.model, changed.alpha, changed.variant) == (("vgg16",), (1.0,), "standard")
    assert profile.override(base, {}, {"model": ("vgg16",), "alpha": (0.5,)}).alpha == (0.5,)
