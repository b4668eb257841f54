import pytest

from mbbench import plan, registry
from mbbench.errors import UsageError
from mbbench.profile import Profile
from mbbench.spec import ModelSpec, PreprocessingOptions


def test_every_backend_has_a_cell_followed_by_its_baselines() -> None:
    spec = plan.plan(Profile(alpha=(0.5,), res=(128,), backend=("openvino", "torch"), baselines=True))
    rows = [(cell.backend, cell.role, cell.model.label, cell.weights) for cell in spec.cells]
    assert rows == [
        ("openvino", "subject", "0.5 MobileNet-128", None),
        ("openvino", "baseline", "VGG16-128", "random"),
        ("openvino", "baseline", "GoogLeNet-128", "random"),
        ("torch", "subject", "0.5 MobileNet-128", None),
        ("torch", "baseline", "VGG16-128", "random"),
        ("torch", "baseline", "GoogLeNet-128", "random"),
    ]


def test_a_grid_is_ordered_by_width_resolution_and_precision_and_baselines_have_its_largest_resolution() -> None:
    grid = Profile(alpha=(0.25, 0.5), res=(128, 160), precision=("fp32", "int8"), baselines=True)
    assert [(cell.model.label, cell.precision) for cell in plan.plan(grid).cells] == [
        ("0.25 MobileNet-128", "fp32"),
        ("0.25 MobileNet-128", "int8"),
        ("0.25 MobileNet-160", "fp32"),
        ("0.25 MobileNet-160", "int8"),
        ("0.5 MobileNet-128", "fp32"),
        ("0.5 MobileNet-128", "int8"),
        ("0.5 MobileNet-160", "fp32"),
        ("0.5 MobileNet-160", "int8"),
        ("VGG16-160", "fp32"),
        ("GoogLeNet-160", "fp32"),
    ]


def test_accuracy_control_requires_a_largest_drop() -> None:
    with pytest.raises(UsageError, match="--accuracy-control requires --max-drop; add --max-drop POINTS"):
        plan.plan(Profile(accuracy_control=True))
    assert plan.plan(Profile(accuracy_control=True, max_drop=0.5)).accuracy_control


def test_a_network_is_not_a_baseline_of_itself() -> None:
    spec = plan.plan(Profile(model=("vgg16",), weights="random", baselines=True))
    assert [cell.model for cell in spec.cells] == [ModelSpec(family="vgg16"), ModelSpec(family="googlenet")]


def test_next_to_mobilenet_the_other_families_are_baselines() -> None:
    spec = plan.plan(Profile(model=("mobilenet_v1", "vgg16"), alpha=(0.5,), precision=("fp32", "int8"), baselines=True))
    assert [(cell.model.label, cell.precision, cell.role, cell.weights) for cell in spec.cells] == [
        ("0.5 MobileNet-224", "fp32", "subject", None),
        ("0.5 MobileNet-224", "int8", "subject", None),
        ("VGG16-224", "fp32", "baseline", "random"),
        ("VGG16-224", "int8", "baseline", "random"),
        ("GoogLeNet-224", "fp32", "baseline", "random"),
    ]


def test_any_family_can_be_a_baseline_at_the_largest_resolution_that_it_accepts() -> None:
    profile = Profile(res=(32, 64), baselines=("squeezenet1_1", "inception_v3", "mobilenet_v1", "squeezenet1_1"))
    assert [(cell.model.label, cell.role, cell.weights) for cell in plan.plan(profile).cells] == [
        ("1.0 MobileNet-32", "subject", None),
        ("1.0 MobileNet-64", "subject", None),
        ("SqueezeNet 1.1-64", "baseline", "random"),
        ("Inception V3-75", "baseline", "random"),
    ]
    with pytest.raises(UsageError, match="unknown model: 'resnet'"):
        plan.plan(Profile(baselines=("resnet",)))
    with pytest.raises(
        UsageError, match=r"^not a built-in network: timm:resnet18; choose one of mobilenet_v1, .*--model$"
    ):
        plan.plan(Profile(baselines=("timm:resnet18",)))


def test_baselines_have_the_subjects_default_resolution() -> None:
    spec = plan.plan(Profile(model=("xception",), weights="random", baselines=("mobilenet_v2",)))
    assert [cell.model.label for cell in spec.cells] == ["Xception-299", "1.0 MobileNetV2-299"]


def test_roles_do_not_depend_on_the_order_of_families() -> None:
    spec = plan.plan(Profile(model=("vgg16", "mobilenet_v1"), alpha=(0.5,)))
    assert [(cell.model.label, cell.role, cell.weights) for cell in spec.cells] == [
        ("VGG16-224", "baseline", "random"),
        ("0.5 MobileNet-224", "subject", None),
    ]


def test_cells_can_be_grouped_by_artifact() -> None:
    profile = Profile(alpha=(0.5,), res=(128, 160), backend=("openvino", "torch"), precision=("fp32", "int8"))
    spec = plan.plan(profile)
    assert [(cell.model.resolution, cell.precision, cell.backend) for cell in plan.group_by_artifact(spec).cells] == [
        (res, precision, backend)
        for res in (128, 160)
        for precision in ("fp32", "int8")
        for backend in ("openvino", "torch")
    ]


def test_an_alpha_for_vgg16_is_refused() -> None:
    with pytest.raises(UsageError, match="no width multiplier"):
        plan.plan(Profile(model=("vgg16",), alpha=(0.5,)))


def test_all_means_every_backend_that_can_start_and_repeated_names_count_once() -> None:
    names = plan.expand_backends(["all", "onnxruntime"])
    assert {"onnxruntime", "openvino", "torch-eager"} <= set(names) <= set(registry.names())
    assert len(names) == len(set(names))


def test_cells_are_counted_before_they_are_made() -> None:
    alphas, sides = tuple(1 + step / 1000 for step in range(100)), tuple(range(100, 200))
    with pytest.raises(UsageError) as caught:
        plan.plan(Profile(alpha=alphas, res=(*sides, 200)))
    assert str(caught.value) == (
        "the grid has too many networks: 10100; give at most 10000, with fewer values or a larger step"
    )
    with pytest.raises(UsageError, match=r"^the run has too many cells: 20000; give at most 10000"):
        plan.plan(Profile(alpha=alphas, res=sides, precision=("fp32", "int8", "fp32")))
    with pytest.raises(UsageError, match=r"^the run has too many cells: 10002; "):
        plan.plan(Profile(alpha=alphas, res=sides, baselines=True))
    assert len(plan.plan(Profile(model=("mobilenet_v1", "vgg16"), alpha=alphas, res=sides[:99])).cells) == 9999


def test_an_empty_list_of_backends_is_refused() -> None:
    with pytest.raises(UsageError, match="no backend is named"):
        plan.expand_backends([""])


@pytest.mark.usefixtures("faulty_backends")
def test_all_lists_backends_that_cannot_start_only_on_request() -> None:
    broken = {"faulty-devices", "faulty-versions", "faulty-module"}
    assert not broken & set(plan.expand_backends(["all"]))
    assert plan.expand_backends(["all"], list_unavailable=True) == registry.names()
    assert broken <= {cell.backend for cell in plan.plan(Profile(backend=("all",)), list_unavailable=True).cells}


def test_backends_named_only_by_all_are_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "names", lambda: ("onnxruntime", "openvino", "torch-eager"))
    assert plan.plan(Profile(backend=("all", "openvino"))).optional_backends == ("onnxruntime", "torch-eager")
    assert plan.plan(Profile(backend=("openvino", "torch-eager"))).optional_backends == ()


def test_preprocessing_and_labels_are_part_of_the_run() -> None:
    profile = Profile(mean=(0.1, 0.2, 0.3), crop=1.0, channels="bgr", labels="l.csv", weights="w.safetensors")
    spec = plan.plan(profile)
    assert spec.preprocessing == PreprocessingOptions(mean=(0.1, 0.2, 0.3), crop=1.0, channels="bgr")
    assert spec.labels == "l.csv"
    with pytest.raises(UsageError, match="--std is out of range: 0,1,1"):
        plan.plan(Profile(std=(0.0, 1.0, 1.0)))
    with pytest.raises(UsageError, match=r"--labels requires --weights: .*; add --weights FILE, or leave out --labels"):
        plan.plan(Profile(labels="l.csv"))


def test_a_spread_keeps_some_networks_of_the_grid_and_all_others() -> None:
    profile = Profile(
        model=("mobilenet_v1", "vgg16"), alpha=(0.25, 0.5, 0.75, 1.0), res=(128, 160, 192), precision=("fp32", "int8")
    )
    spec = plan.plan(profile)
    kept = plan.keep_spread(spec, 5)
    assert len(plan.grid_of(spec)) == 12 and len(plan.grid_of(kept)) == 5
    assert {(model.alpha, model.resolution) for model in plan.grid_of(kept)} == {
        (0.25, 128), (0.25, 192), (1.0, 128), (1.0, 192), (0.5, 160),
    }  # fmt: skip
    assert len(kept.cells) == 5 * 2 + 3 * 2
    assert [cell for cell in spec.cells if cell in kept.cells] == list(kept.cells)
    with pytest.raises(UsageError, match="--predict is out of range: 4 networks; give 5 to 10000 networks"):
        plan.keep_spread(spec, 4)
