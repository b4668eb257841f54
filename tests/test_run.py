"""Whole runs on ONNX Runtime, including runs with cells that fail."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mbbench import registry, store, weights
from mbbench.artifacts import prepare
from mbbench.artifacts.prepare import Ready, Unavailable
from mbbench.errors import BackendError, CellsFailedError, MbbenchError, RequirementError, UsageError
from mbbench.events import Announce, Event, Finished, Measuring, Preparing, Stated
from mbbench.machine import fingerprint
from mbbench.measure import ceilings
from mbbench.models.cost import cost_of
from mbbench.result import Ceilings, Failure, Result, SplitSizes
from mbbench.run import raise_for_failures, result_id, run
from mbbench.spec import Cell, ModelSpec, Preprocessing, PreprocessingOptions, RunSpec, Settings, content_key

SETTINGS = Settings(min_samples=20, min_s=0.01, max_s=1.0, warmup_max_s=0.5, throughput_s=0.05, bulk_batch=8)
CELL = Cell(
    model=ModelSpec(alpha=0.25, resolution=32),
    role="subject",
    weights="random",
    backend="onnxruntime",
    device="",
)


def spec_of(*cells: Cell) -> RunSpec:
    return RunSpec(cells=cells, data="digits", images=40, settings=SETTINGS)


def quiet(event: Event) -> None:
    pass


def test_a_run_measures_stores_and_announces_a_cell(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "results.jsonl"
    events: list[Event] = []
    (result,) = run(spec_of(CELL), path, events.append)
    assert store.read(path) == [result]
    assert result.failure is None
    assert result.cell == replace(CELL, model=replace(CELL.model, classes=10), device="cpu")  # the default, resolved
    assert result.weights is not None and result.weights.origin == "random"
    assert result.data is not None and (result.data.name, result.data.images) == ("digits", 40)
    assert result.cost is not None and result.artifact is not None
    assert result.artifact.size_bytes > result.cost.weight_bytes * 0.9
    assert set(result.versions) == {"mbbench", "numpy", "torch", "onnxruntime"}
    assert result.measured.accuracy is not None
    assert result.measured.accuracy.top1 is None
    assert result.reasons["accuracy.top1"] == "random weights have no accuracy"
    assert result.layer_times is not None and result.layer_times.runs == 20
    assert [layer.name for layer in result.layer_times.layers] == [
        layer.name for layer in cost_of(result.cell.model).layers
    ]
    assert result.ceilings is not None and result.ceilings.threads == 1
    kinds = [type(event) for event in events if not isinstance(event, Preparing)]
    assert kinds == [Measuring, Finished]


def test_a_cell_is_measured_even_if_the_ceilings_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Ceilings:
        raise MbbenchError("no kernel runs", "fix it")

    monkeypatch.setattr(ceilings, "machine_ceilings", fail)
    (result,) = run(spec_of(CELL), tmp_path / "results.jsonl", quiet)
    assert result.failure is None
    assert (result.ceilings, result.reasons["ceilings"]) == (None, "no kernel runs; fix it")


def test_a_cell_that_does_not_run_on_a_cpu_has_no_ceilings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Ceilings:
        raise AssertionError("ceilings were measured")

    def on_gpu(spec: RunSpec, announce: Announce) -> list[Ready | Unavailable]:
        return [replace(item, device="GPU.0") for item in prepare_all(spec, announce) if isinstance(item, Ready)]

    prepare_all = prepare.prepare_all
    monkeypatch.setattr(ceilings, "machine_ceilings", fail)
    monkeypatch.setattr(prepare, "prepare_all", on_gpu)
    (result,) = run(spec_of(CELL), tmp_path / "results.jsonl", quiet)
    assert result.failure is None
    assert (result.ceilings, result.reasons["ceilings"]) == (None, "ceilings are measured for CPUs only")


def test_a_repeated_run_uses_the_cached_artifact_and_has_the_same_id(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    (first,) = run(spec_of(CELL), path, quiet)
    events: list[Event] = []
    (second,) = run(spec_of(CELL), path, events.append)
    assert not any(isinstance(event, Preparing) for event in events)
    assert first.id == second.id
    assert len(store.read(path)) == 2


@pytest.mark.usefixtures("faulty_backends")
def test_a_failing_cell_is_recorded_and_the_run_continues(tmp_path: Path) -> None:
    cells = (replace(CELL, backend="faulty-killed"), CELL)
    results = list(run(spec_of(*cells), tmp_path / "results.jsonl", quiet))
    assert [result.failure is None for result in results] == [False, True]
    assert store.read(tmp_path / "results.jsonl") == results
    with pytest.raises(CellsFailedError, match="1 of 2 cells failed: the measuring process was killed by the kernel"):
        raise_for_failures(results)


def test_a_backend_that_cannot_start_fails_only_its_cells(tmp_path: Path) -> None:
    cells = (replace(CELL, device="gpu"), CELL)
    results = list(run(spec_of(*cells), tmp_path / "results.jsonl", quiet))
    assert results[0].failure is not None
    assert (results[0].failure.exit_code, results[0].failure.cause) == (6, "unknown device: 'gpu'")
    assert results[1].failure is None


def test_a_run_without_a_backend_that_can_start_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with pytest.raises(BackendError, match="unknown backend: 'tensorflow'"):
        list(run(spec_of(replace(CELL, backend="tensorflow")), path, quiet))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (replace(CELL, weights="/no/such.safetensors"), "no/such.safetensors"),
        (
            replace(CELL, model=ModelSpec(family="vgg16", resolution=32), weights=None),
            "VGG16-32 has no default weights",
        ),
    ],
)
def test_invalid_input_is_refused_before_anything_is_measured(tmp_path: Path, cell: Cell, message: str) -> None:
    path = tmp_path / "results.jsonl"
    with pytest.raises(UsageError, match=message):
        list(run(spec_of(CELL, cell), path, quiet))
    assert list(tmp_path.iterdir()) == []


def test_more_threads_than_cpus_are_refused(tmp_path: Path) -> None:
    spec = replace(spec_of(CELL), settings=replace(SETTINGS, threads=4096))
    with pytest.raises(UsageError, match=r"--threads is more than the number of available CPUs, .*: 4096"):
        list(run(spec, tmp_path / "results.jsonl", quiet))


@pytest.mark.usefixtures("faulty_backends")
@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("faulty-devices", "listing its devices: RuntimeError: cannot open the driver"),
        ("faulty-versions", "reading its versions: TypeError: the version is not a string"),
        ("faulty-precisions", "listing its precisions: KeyError: 'cpu'"),
        ("faulty-dialects", "listing its precisions: AttributeError: no instruction set"),
    ],
)
def test_a_broken_runtime_fails_only_its_cells(name: str, cause: str) -> None:
    first, second = prepare.prepare_all(spec_of(replace(CELL, backend=name), CELL), quiet)
    assert isinstance(first, Unavailable) and isinstance(second, Ready)
    assert first.error.cause == f"backend {name} failed while {cause}"


@pytest.mark.usefixtures("faulty_backends")
def test_a_third_party_converts_to_a_format_of_its_own(tmp_path: Path) -> None:
    (result,) = run(spec_of(replace(CELL, backend="faulty-converter")), tmp_path / "results.jsonl", quiet)
    assert result.failure is None
    assert result.artifact is not None and result.artifact.format == "mine"
    assert result.measured.parity is not None and result.measured.parity.passed
    assert result.measured.latency is not None


def failed(result: Result, exit_code: int) -> Result:
    return replace(result, failure=Failure(cause=f"cause {exit_code}", remedy="remedy", exit_code=exit_code))


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((0, 0), None),
        ((6, 6), BackendError),
        ((6, 0), CellsFailedError),
        ((7, 7), CellsFailedError),
        ((7, 5), RequirementError),
        ((5, 0), RequirementError),
    ],
)
def test_the_error_of_a_run_depends_on_its_failures(make_result, codes, expected) -> None:  # type: ignore[no-untyped-def]
    results = [failed(make_result(), code) if code else make_result() for code in codes]
    if expected is None:
        raise_for_failures(results)
        return
    with pytest.raises(expected):
        raise_for_failures(results)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((5, 0), CellsFailedError),
        ((5, 5), RequirementError),
        ((5, 6), CellsFailedError),
        ((7, 5), CellsFailedError),
        ((6, 6), BackendError),
        ((6, 0), CellsFailedError),
    ],
)
def test_in_a_sweep_only_a_failure_of_all_cells_has_its_own_exit_code(make_result, codes, expected) -> None:  # type: ignore[no-untyped-def]
    results = [failed(make_result(), code) if code else make_result() for code in codes]
    with pytest.raises(expected):
        raise_for_failures(results, requirements_first=False)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ((("optional", 6), ("named", 0)), None),
        ((("optional", 6), ("optional", 0)), None),
        ((("optional", 6), ("optional", 6)), BackendError),
        ((("named", 6), ("named", 0)), CellsFailedError),
        ((("optional", 6), ("named", 6)), BackendError),
        ((("optional", 7), ("named", 0)), CellsFailedError),
        ((("optional", 6), ("named", 7)), CellsFailedError),
        ((("optional", 6), ("named", 5)), RequirementError),
    ],
)
@pytest.mark.parametrize("requirements_first", [True, False])
def test_what_an_optional_backend_does_not_support_is_not_a_failure(  # type: ignore[no-untyped-def]
    make_result, cells, expected, requirements_first
) -> None:
    results = [failed(make_result(backend=name), code) if code else make_result(backend=name) for name, code in cells]
    if expected is None:
        raise_for_failures(results, ("optional",), requirements_first=requirements_first)
        return
    with pytest.raises(expected):
        raise_for_failures(results, ("optional",), requirements_first=requirements_first)


def test_unsupported_cells_are_not_among_the_counted_ones(make_result) -> None:  # type: ignore[no-untyped-def]
    results = [failed(make_result(backend="optional"), 6), failed(make_result(), 7), make_result()]
    with pytest.raises(CellsFailedError, match="1 of 2 cells failed: cause 7"):
        raise_for_failures(results, ("optional",))


def test_how_a_backend_was_named_does_not_enter_a_results_id() -> None:
    spec, machine = spec_of(CELL), fingerprint()
    optional = replace(spec, optional_backends=("onnxruntime",))
    assert result_id(spec, machine, CELL, None, None) == result_id(optional, machine, CELL, None, None)


def test_int8_is_executed_and_not_calibrated_on_the_test_images(tmp_path: Path) -> None:
    cell = replace(CELL, precision="int8")
    spec = replace(spec_of(cell), require_effective=True)
    (result,) = run(spec, tmp_path / "results.jsonl", quiet)
    assert result.failure is None
    assert (
        result.artifact is not None and result.artifact.dialect == registry.load("onnxruntime").dialects("cpu")["int8"]
    )
    assert result.executed is not None and result.quantization is not None
    fp32_layers = [name for name in result.quantization.kept_fp32 if name.endswith(".conv")]
    assert fp32_layers == (["stem.conv", "blocks.0.0.conv"] if result.artifact.dialect == "u8s8f" else [])
    shares = {share.precision: share.layers for share in result.executed.shares}
    assert shares == ({"int8": 28 - len(fp32_layers), "fp32": len(fp32_layers)} if fp32_layers else {"int8": 28})
    assert (result.quantization.calibration, result.quantization.judged_by) == ("digits", "agreement")
    assert result.data is not None
    assert result.quantization.calibration_fingerprint != result.data.fingerprint
    assert store.read(tmp_path / "results.jsonl") == [result]


def test_images_without_labels_calibrate_int8_and_measure_agreement(tmp_path: Path) -> None:
    for number in range(20):
        noise = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    spec = replace(spec_of(replace(CELL, precision="int8")), data=str(tmp_path), images=None)
    (result,) = run(spec, tmp_path / "results.jsonl", quiet)
    assert result.failure is None and result.quantization is not None and result.measured.accuracy is not None
    assert (result.cell.model.classes, result.quantization.judged_by) == (1000, "agreement")
    assert (result.measured.accuracy.images, result.measured.accuracy.top1) == (4, None)
    assert result.reasons["accuracy.top1"] == "random weights have no accuracy"
    trained = replace(spec, cells=(replace(CELL, weights=None),))
    with pytest.raises(UsageError, match="has no labels to train on; give --weights FILE"):
        list(run(trained, tmp_path / "results.jsonl", quiet))


def test_a_precision_that_is_not_native_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        BackendError, match=r"onnxruntime has no native bf16 on cpu here.*choose --precision fp32, int8"
    ):
        list(run(spec_of(replace(CELL, precision="bf16")), tmp_path / "results.jsonl", quiet))


def test_a_cell_beyond_max_drop_fails_and_keeps_its_measurements(tmp_path: Path) -> None:
    spec = replace(spec_of(replace(CELL, precision="int8")), max_drop=0.0, calibration="random")
    (result,) = run(spec, tmp_path / "results.jsonl", quiet)
    assert result.failure is not None
    assert result.failure.cause.startswith("without labels, ")
    assert result.failure.cause.endswith(" of the answers differ from fp32's, more than --max-drop 0")
    assert result.measured.latency is not None
    with pytest.raises(RequirementError):
        raise_for_failures([result])


def test_random_calibration_is_used_if_requested(tmp_path: Path) -> None:
    spec = replace(spec_of(replace(CELL, precision="int8")), calibration="random")
    (result,) = run(spec, tmp_path / "results.jsonl", quiet)
    assert result.quantization is not None
    assert result.quantization.calibration == "random"


def write_folders(folder: Path, *names: str) -> None:
    """Write a data set with 8 training and 4 test images for each class."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for name in names:
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(generator.integers(0, 256, (40, 40, 3), np.uint8)).save(
                    folder / split / name / f"{i}.png"
                )


def write_checkpoint(path: Path, outputs: int, answer: int) -> None:
    """Write a network that always gives one answer."""
    module = weights.random(replace(CELL.model, classes=outputs)).build()
    state = module.state_dict()
    state["classifier.bias"][answer] += 100 * max(1.0, float(state["classifier.weight"].abs().max()))
    torch.save(state, path)


@pytest.mark.parametrize(("outputs", "answer"), [(1000, 217), (1001, 218)])
def test_synset_folders_are_judged_by_the_networks_classes(tmp_path: Path, outputs: int, answer: int) -> None:
    folder = tmp_path / "nette"
    write_folders(folder, "n01440764", "n02102040", "n03000684", "n03888257")
    write_checkpoint(tmp_path / "w.pt", outputs, answer)
    cells = [replace(CELL, weights=str(tmp_path / "w.pt"), precision=precision) for precision in ("fp32", "int8")]
    spec = replace(spec_of(*cells), data=str(folder), images=None)
    events: list[Event] = []
    for result in run(spec, tmp_path / "results.jsonl", events.append):
        assert result.failure is None
        accuracy = result.measured.accuracy
        assert accuracy is not None
        assert (accuracy.top1, accuracy.images, accuracy.agreement) == (0.25, 16, 1.0)
        assert accuracy.drop is not None and accuracy.drop.share == 0.0
        assert result.labels is not None and result.data is not None
        assert (result.labels.source, result.labels.background) == ("imagenet", outputs == 1001)
        assert (result.cell.model.classes, result.data.classes) == (outputs, 4)
        if result.quantization is not None:
            assert result.quantization.judged_by == "top1"
            assert 0 < result.quantization.chosen.share < 1  # of held-out training images, not the answer's agreement
    texts = [event.text for event in events if isinstance(event, Stated)]
    splits, labels = dict.fromkeys(texts)
    assert splits == "nette: 32 training and 16 test images"
    assert labels.startswith("nette: 4 of 4 folders are ImageNet classes")


def test_broken_images_end_the_run_or_are_left_out_and_counted(tmp_path: Path) -> None:
    write_folders(tmp_path / "pets", "cat", "dog")
    for split, kind in (("val", "cat"), ("train", "dog")):
        (tmp_path / "pets" / split / kind / "1.png").write_bytes(b"no image")
    spec = replace(spec_of(replace(CELL, precision="int8")), data=str(tmp_path / "pets"), images=None)
    with pytest.raises(UsageError, match=r"^cannot decode .*/val/cat/1\.png \(not an image\); replace or remove the"):
        list(run(spec, tmp_path / "results.jsonl", quiet))
    events: list[Event] = []
    (result,) = run(replace(spec, skip_broken=True), tmp_path / "results.jsonl", events.append)
    assert result.data is not None and result.quantization is not None
    assert (result.data.images, result.data.skipped, result.data.splits) == (7, 1, SplitSizes(train=16, test=8))
    assert result.quantization.images + result.quantization.held_out == 15
    broken = tmp_path / "pets"
    assert list(dict.fromkeys(event.text for event in events if isinstance(event, Stated))) == [
        "pets: 16 training and 8 test images",
        f"pets: 1 of 8 test images cannot be decoded and are left out: {broken / 'val' / 'cat' / '1.png'}",
        f"pets: 1 of 16 training images cannot be decoded and are left out: {broken / 'train' / 'dog' / '1.png'}",
    ]


def test_a_file_of_labels_decides_which_answers_are_right(tmp_path: Path) -> None:
    write_folders(tmp_path / "pets", "cat", "dog")
    write_checkpoint(tmp_path / "w.pt", 3, 2)
    cell = replace(CELL, weights=str(tmp_path / "w.pt"))
    spec = replace(spec_of(cell), data=str(tmp_path / "pets"), images=None)
    (result,) = run(spec, tmp_path / "results.jsonl", quiet)
    assert result.reasons["accuracy.top1"] == "the weights have 3 classes, the data has 2"
    for text, top1 in (("cat,2\ndog,0\n", 0.5), ("cat,1\ndog,0\n", 0.0), ("cat,2\ndog,2\n", 1.0)):
        (tmp_path / "l.csv").write_text(text)
        (mapped,) = run(replace(spec, labels=str(tmp_path / "l.csv")), tmp_path / "results.jsonl", quiet)
        assert mapped.measured.accuracy is not None and mapped.measured.accuracy.top1 == top1
        assert mapped.labels is not None and mapped.labels.source == "file"
    assert len({stored.id for stored in store.read(tmp_path / "results.jsonl")}) == 4


@dataclass(frozen=True)
class DataBefore:
    """`DataInfo` as it was before broken images could be left out: ids of stored results hold it."""

    name: str
    images: int
    classes: int
    fingerprint: str
    preprocess: str


def test_the_id_and_the_record_have_the_preprocessing_only_if_it_is_special(tmp_path: Path) -> None:
    def prepared(options: PreprocessingOptions) -> tuple[str, Ready]:
        spec = replace(spec_of(CELL), preprocessing=options)
        (ready,) = prepare.prepare_all(spec, quiet)
        assert isinstance(ready, Ready)
        return result_id(spec, fingerprint(), ready.cell, ready, "ab"), ready

    usual, ready = prepared(PreprocessingOptions())
    versions = prepare.versions([ready])
    data = DataBefore("digits", ready.data.count, 10, ready.data.fingerprint, ready.data.preprocess)
    assert usual == content_key(ready.cell, SETTINGS, versions, fingerprint().id, data, "ab")
    assert prepared(PreprocessingOptions(mean=(0.5, 0.5, 0.5), crop=1.0))[0] == usual  # digits are not cropped
    special = PreprocessingOptions(mean=(0.485, 0.456, 0.406))
    assert prepared(special)[0] != usual
    (result,) = run(replace(spec_of(CELL), preprocessing=special), tmp_path / "results.jsonl", quiet)
    assert result.preprocessing == Preprocessing(mean=(0.485, 0.456, 0.406))
    assert result.measured.accuracy is not None and result.measured.accuracy.agreement == 1.0
