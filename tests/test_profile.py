from dataclasses import replace
from pathlib import Path

import pytest

from mbbench import profile
from mbbench.errors import UsageError
from mbbench.spec import Settings

SHIPPED = ("ci", "default", "edge", "quick", "reference", "rigorous")


def test_all_shipped_profiles_can_be_read_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert profile.names() == SHIPPED
    for name in SHIPPED:
        assert profile.read_profile(name).description


def test_the_default_profile_equals_the_defaults_in_code() -> None:
    loaded = profile.read_profile("default")
    assert loaded.settings == Settings()
    assert loaded == replace(profile.Profile(), description=loaded.description)
    assert (loaded.model, loaded.alpha, loaded.backend) == (("mobilenet_v1",), (1.0,), ("openvino",))


def test_a_profile_in_the_working_folder_takes_precedence_over_a_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "quick.toml").write_text("alpha = 0.33\n")
    monkeypatch.chdir(tmp_path)
    assert profile.read_profile("quick").alpha == (0.33,)


def test_a_profile_can_be_a_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('backend = ["torch", "openvino"]\nimages = 5\n[settings]\nthreads = 2\n')
    loaded = profile.read_profile(str(path))
    assert (loaded.backend, loaded.images, loaded.settings.threads) == (("torch", "openvino"), 5, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alpah = 0.5", "p has an unknown key: 'alpah'; did you mean alpha? choose one of description, "),
        (
            "[settings]\nthread = 2",
            "p [settings] has an unknown key: 'thread'; did you mean threads? choose one of threads, ",
        ),
        ("alpha = []", "p: --alpha has no value: []; give at least one, or leave it out"),
        ("backend = []", "p: --backend has no value: []; "),
        ("images = 0", "p: --images is out of range: 0; give 1 to 10000000"),
        ("max_drop = nan", "p: --max-drop is out of range: nan points; give 0 to 100 points"),
        (f"images = {'9' * 5000}", "p is not TOML: Exceeds the limit"),
        (f"images = {'9' * 50}", "p: "),
        ("zzz = 1", "p has an unknown key: 'zzz'; choose one of description, model,"),
        ("alpha = ", "p is not TOML: Invalid value"),
        ('alpha = "wide"', "p: alpha must be a number: 'wide'; fix that value"),
        ('res = [128, "b"]', "p: res[1] must be a whole number: 'b'; fix that value"),
        ('images = "all"', "p: images must be a whole number: 'all'; fix that value"),
        ("mean = [1, 2]", "p: mean must have 3 values: [1, 2]; fix that value"),
        ("accuracy_control = 1", "p: accuracy_control must be true or false: 1; fix that value"),
        ("settings = 3", "p: settings must be a table: 3; fix that value"),
        ("[settings]\nthreads = 1.5", "p: settings.threads must be a whole number: 1.5; fix that value"),
        ('precision = "int9"', "p: precision has an unknown value: 'int9'; did you mean int8? choose one of fp32, "),
        (
            '[settings]\nscenarios = ["server", "x"]',
            "p: settings.scenarios[1] has an unknown value: 'x'; choose one of single-stream, multi-stream, offline,",
        ),
        ("[settings]\nthreads = 0", "p: --threads is out of range: 0; give 1 to 4096"),
    ],
)
def test_an_invalid_profile_is_reported_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        profile.parse(text, "p")
    assert str(caught.value).startswith(message)


def test_an_unknown_profile_is_refused_with_the_list() -> None:
    with pytest.raises(UsageError, match="choose one of ci, default, edge, quick, reference, rigorous"):
        profile.read_profile("fast")


def test_an_unreadable_file_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the profile"):
        profile.read_profile(str(tmp_path / "none.toml"))


def test_options_override_the_profile_unless_they_are_none() -> None:
    base = profile.parse("alpha = 0.25\nres = 96\n[settings]\nthreads = 2\n", "p")
    changed = profile.override(base, {"threads": None, "batch": 4}, {"alpha": None, "res": (128,), "baselines": False})
    assert (changed.alpha, changed.res, changed.settings.threads, changed.settings.batch) == ((0.25,), (128,), 2, 4)


def test_a_single_value_needs_no_brackets() -> None:
    grid = profile.parse("alpha = [0.25, 1.0]\nres = 128\n", "p")
    assert (grid.alpha, grid.res) == ((0.25, 1.0), (128,))
    assert [model.label for model in grid.models] == ["0.25 MobileNet-128", "1.0 MobileNet-128"]


def test_without_a_resolution_each_family_has_that_of_its_authors() -> None:
    models = profile.parse('model = ["mobilenet_v1", "inception_v3", "xception"]', "p").models
    assert [model.label for model in models] == ["1.0 MobileNet-224", "Inception V3-299", "Xception-299"]
    assert [model.label for model in profile.parse('model = "xception"\nres = 128', "p").models] == ["Xception-128"]


def test_alpha_and_variant_apply_to_the_families_that_have_them() -> None:
    grid = profile.parse(
        'model = ["mobilenet_v2", "alexnet", "googlenet"]\nalpha = [0.5, 1.0]\nvariant = "grouped"\n', "p"
    )
    assert [model.label for model in grid.models] == [
        "0.5 MobileNetV2-224", "1.0 MobileNetV2-224", "Grouped AlexNet-224", "GoogLeNet-224",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alpha = 0.5", "VGG16 has no width multiplier: 0.5"),
        ('variant = "shallow"', "VGG16 has no variant 'shallow'"),
    ],
)
def test_alpha_or_variant_that_no_family_has_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _ = profile.parse(f'model = ["vgg16", "googlenet"]\n{text}\n', "p").models


@pytest.mark.parametrize(
    ("text", "families"),
    [
        ("", ()),
        ("baselines = false", ()),
        ("baselines = true", ("vgg16", "googlenet")),
        ('baselines = ["alexnet", "squeezenet1_1"]', ("alexnet", "squeezenet1_1")),
    ],
)
def test_baselines_are_the_usual_ones_or_named(text: str, families: tuple[str, ...]) -> None:
    assert profile.parse(text, "p").baseline_families == families


def test_with_several_families_alpha_and_variant_apply_to_mobilenet_only() -> None:
    grid = profile.parse('model = ["vgg16", "mobilenet_v1"]\nalpha = [0.25, 0.5]\nvariant = "shallow"\n', "p")
    labels = ["VGG16-224", "Shallow 0.25 MobileNet-224", "Shallow 0.5 MobileNet-224"]
    assert [model.label for model in grid.models] == labels


@pytest.mark.parametrize(
    ("models", "res"),
    [
        (("mine.onnx",), ()),
        (("mine.onnx", "timm:resnet18"), ()),
        (("mine.onnx", "mobilenet_v1"), (128,)),
        (("vgg16",), (128,)),
    ],
)
def test_the_profiles_resolution_is_dropped_for_networks_in_files(
    models: tuple[str, ...], res: tuple[int, ...]
) -> None:
    base = profile.read_profile("ci")
    assert base.res == (128,)
    assert profile.override(base, {}, {"model": models}).res == res
    assert profile.override(base, {}, {"model": models, "res": (96,)}).res == (96,)


def test_the_profiles_alpha_and_variant_are_dropped_for_another_family() -> None:
    base = profile.parse('alpha = 0.25\nvariant = "shallow"\n', "p")
    changed = profile.override(base, {}, {"model": ("vgg16",)})
    assert (changed.model, changed.alpha, changed.variant) == (("vgg16",), (1.0,), "standard")
    assert profile.override(base, {}, {"model": ("vgg16",), "alpha": (0.5,)}).alpha == (0.5,)
    second = profile.override(base, {}, {"model": ("mobilenet_v2",)})
    assert (second.alpha, second.variant) == ((0.25,), "standard")
    with pytest.raises(UsageError, match="unknown model: 'resnet'"):
        profile.override(base, {}, {"model": ("resnet",)})


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with folders that have the names of data sets and weights."""
    for name in ("digits", "random", "imagenet", "timm:x", "photos", "a:photos"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def option(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits", "digits"),
        ("random", "random"),
        ("photos", "{}/photos"),
        ("./digits", "{}/digits"),
        ("a:photos", "{}/a:photos"),
        ("fashion-mnist:photos", "fashion-mnist:{}/photos"),
        ("fashion-mnist:digits", "fashion-mnist:{}/digits"),
        ("missing", "{}/missing"),
        ("~/photos", "/home/someone/photos"),
        ("/data/photos", "/data/photos"),
    ],
)
def test_options_for_another_checkout_name_the_same_data(
    folders: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    arguments = profile.to_options(profile.Profile(data=name, calibration=name))
    assert option(arguments, "--data") == option(arguments, "--calibration") == expected.format(folders)
    elsewhere = profile.parse_data_name(option(arguments, "--data"))
    kind, folder = profile.parse_data_name(name)
    assert elsewhere == (kind, folder and folder.absolute())


def test_options_for_another_checkout_name_the_network() -> None:
    arguments = profile.to_options(profile.Profile(model=("inception_v3",)))
    assert option(arguments, "--model") == "inception_v3"
    assert option(arguments, "--res") == "299"  # the other checkout's profile may name another resolution
    assert "--alpha" not in arguments and "--variant" not in arguments
    arguments = profile.to_options(profile.Profile(model=("mobilenet_v2",), alpha=(0.5,)))
    assert option(arguments, "--alpha") == "0.5" and "--variant" not in arguments
    arguments = profile.to_options(profile.Profile(model=("alexnet",), variant="grouped"))
    assert option(arguments, "--variant") == "grouped" and "--alpha" not in arguments


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize("name", ["random", "imagenet", "timm:x", "w.safetensors"])
def test_options_for_another_checkout_leave_weights_unchanged(name: str) -> None:
    """The weights may be what changed: a relative file is that of the other checkout."""
    assert option(profile.to_options(profile.Profile(weights=name)), "--weights") == name


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("", "there is no data folder ''; "),
        ("fashion-mnist:", "there is no data folder ''; "),
        ("~nobody-by-this-name/photos", "cannot find '~nobody-by-this-name/photos': .*; write the whole path"),
    ],
)
def test_a_data_name_without_a_folder_is_refused(name: str, cause: str) -> None:
    with pytest.raises(UsageError, match=cause):
        profile.parse_data_name(name)


@pytest.mark.usefixtures("folders")
def test_options_for_another_checkout_have_preprocessing_only_if_it_was_chosen() -> None:
    arguments = profile.to_options(profile.Profile(mean=(0.1, 0.2, 0.3), crop=0.9, channels="bgr", labels="l.csv"))
    chosen = {name: option(arguments, name) for name in ("--mean", "--crop", "--channels", "--labels")}
    assert chosen == {
        "--mean": "0.1,0.2,0.3", "--crop": "0.9", "--channels": "bgr", "--labels": str(Path("l.csv").absolute()),
    }  # fmt: skip
    assert not {"--std", "--interpolation"} & set(arguments)
    assert not {"--mean", "--labels"} & set(profile.to_options(profile.Profile()))


def test_options_for_another_checkout_skip_broken_images_only_if_this_one_does() -> None:
    assert profile.to_options(profile.Profile(skip_broken=True))[-1] == "--skip-broken"
    assert "--skip-broken" not in profile.to_options(profile.Profile())
    assert profile.parse("skip_broken = true", "mine.toml").skip_broken


def test_preprocessing_is_read_from_toml() -> None:
    parsed = profile.parse('mean = [0.1, 0.2, 0.3]\ncrop = 1.0\ninterpolation = "bicubic"', "mine.toml")
    assert (parsed.mean, parsed.crop, parsed.interpolation) == ((0.1, 0.2, 0.3), 1.0, "bicubic")


def test_a_deeply_nested_profile_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^x\.toml is nested too deeply;"):
        profile.parse(f"alpha = {'[' * 100_000}", "x.toml")
