"""`mbbench keep` and `mbbench check` on ONNX Runtime, from the files to the exit code."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import onnx
import pytest

from mbbench.artifacts.export import Exported
from mbbench.check import check, keep, raise_for_outcome
from mbbench.cli import app
from mbbench.compare import baseline
from mbbench.compare.changes import parse_limits
from mbbench.compare.record import GateRecord
from mbbench.errors import InconclusiveError, RegressionError, RequirementError, UsageError
from mbbench.events import Event, Measuring
from mbbench.report.formats import junit
from mbbench.report.sections import verdicts
from mbbench.spec import Cell, ModelSpec, RunSpec, Settings

MODEL = ModelSpec(alpha=0.25, resolution=32)
SPEC = RunSpec(
    cells=(Cell(model=MODEL, role="subject", weights="random", backend="onnxruntime", device=""),),
    data="digits",
    images=32,
    settings=Settings(bulk_batch=8, timeout_s=60),
)
WIDER = replace(SPEC, cells=(replace(SPEC.cells[0], model=replace(MODEL, alpha=1.0)),))
P50 = parse_limits(["p50:3%"])


def quiet(_: Event) -> None:
    pass


@pytest.fixture(scope="module")
def baseline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    keep(SPEC, folder, quiet)
    return folder


@pytest.fixture
def misnamed_baseline(baseline_folder: Path, tmp_path: Path) -> Path:
    """A baseline of 0.25 MobileNet that claims to be 1.0 MobileNet, which is then four times as wide."""
    folder = tmp_path / "misnamed"
    entries = baseline.read_manifest(baseline_folder)
    renamed = [
        replace(entry, cell=replace(entry.cell, model=replace(entry.cell.model, alpha=1.0))) for entry in entries
    ]
    folder.mkdir()
    (folder / "baseline.json").write_bytes(msgspec.json.encode(renamed))
    for entry in entries:
        (folder / entry.file_name).write_bytes((baseline_folder / entry.file_name).read_bytes())
    return folder


def test_a_kept_artifact_is_named_by_its_content(baseline_folder: Path) -> None:
    (entry,) = baseline.read_manifest(baseline_folder)
    assert sorted(path.name for path in baseline_folder.iterdir()) == sorted(["baseline.json", entry.file_name])
    assert entry.file_name == f"{entry.artifact.sha256[:16]}.onnx"
    assert entry.versions["onnxruntime"]


def test_keeping_again_deletes_the_old_artifacts_and_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "unrelated.onnx").write_bytes(b"unrelated")
    keep(SPEC, tmp_path, quiet)
    (before,) = baseline.read_manifest(tmp_path)
    keep(WIDER, tmp_path, quiet)
    (after,) = baseline.read_manifest(tmp_path)
    assert before.file_name != after.file_name
    assert not (tmp_path / before.file_name).exists()
    assert (tmp_path / "unrelated.onnx").read_bytes() == b"unrelated"


def test_an_identical_artifact_passes_without_measuring(baseline_folder: Path) -> None:
    events: list[Event] = []
    record = check(SPEC, baseline_folder, parse_limits(["p50:3%", "size:1%"]), 0.5, events.append)
    (cell,) = record.cells
    assert (record.outcome, cell.rounds) == ("pass", ())
    assert {verdict.change.reason for verdict in cell.verdicts} == {"the artifact is the baseline's, byte for byte"}
    assert not any(isinstance(event, Measuring) for event in events)
    raise_for_outcome(record, strict=True)


def test_a_slower_network_fails_after_two_rounds(misnamed_baseline: Path) -> None:
    events: list[Event] = []
    record = check(WIDER, misnamed_baseline, P50, 0.5, events.append)
    (cell,) = record.cells
    assert sum(isinstance(event, Measuring) for event in events) == len(cell.rounds) == 2
    (verdict,) = cell.verdicts
    assert (verdict.outcome, verdict.confirmed) == ("fail", True)
    assert verdict.change.change is not None and verdict.change.change > 1
    with pytest.raises(RegressionError) as caught:
        raise_for_outcome(record, strict=False)
    assert caught.value.exit_code == 3


def test_a_bigger_file_fails_without_a_second_round(misnamed_baseline: Path) -> None:
    record = check(WIDER, misnamed_baseline, parse_limits(["size:1%", "rss:300%"]), 0.5, quiet)
    (cell,) = record.cells
    assert len(cell.rounds) == 1
    assert [verdict.outcome for verdict in cell.verdicts] == ["fail", "pass"]


def test_an_inconclusive_outcome_is_an_error_only_if_strict(misnamed_baseline: Path) -> None:
    record = check(WIDER, misnamed_baseline, parse_limits(["top1:-0.5pt"]), 0.5, quiet)
    assert record.outcome == "inconclusive"  # random weights have no accuracy
    raise_for_outcome(record, strict=False)
    with pytest.raises(InconclusiveError) as caught:
        raise_for_outcome(record, strict=True)
    assert caught.value.exit_code == 4


@pytest.mark.usefixtures("faulty_backends")
def test_a_cell_that_fails_does_not_affect_the_verdicts_of_the_others(baseline_folder: Path, tmp_path: Path) -> None:
    """Two different files of the same network, on ONNX Runtime and on a runtime that returns NaN."""
    spec = replace(SPEC, cells=(*SPEC.cells, replace(SPEC.cells[0], backend="faulty-nan")))
    keep(spec, tmp_path, quiet)
    for entry in baseline.read_manifest(tmp_path):
        model = onnx.load(tmp_path / entry.file_name)
    model.doc_string = "changes the bytes"
    content = model.SerializeToString()
    path = tmp_path / "changed.onnx"
    path.write_bytes(content)
    info = replace(entry.artifact, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    cells: list[tuple[Cell, Exported, dict[str, str]]] = [(cell, Exported(path, info), {}) for cell in spec.cells]
    baseline.write(tmp_path, cells)
    record = check(spec, tmp_path, parse_limits(["size:1%", "top1:-100pt"]), 0.5, quiet)
    sound, faulty = record.cells
    assert (sound.failure, len(sound.verdicts)) == (None, 2)
    assert faulty.failure is not None and faulty.failure.exit_code == 5
    assert faulty.verdicts == ()
    with pytest.raises(RequirementError):
        raise_for_outcome(record, strict=False)
    assert verdicts.headline(record).endswith("; 1 could not be measured.")
    assert ElementTree.fromstring(junit.render_gate(record))[1][0][0].tag == "error"


def test_a_cell_without_a_baseline_is_reported_in_one_line(baseline_folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        check(WIDER, baseline_folder, P50, 0.5, quiet)
    assert str(caught.value) == (
        "the baseline has no 1.0 MobileNet-32 fp32 on onnxruntime (it has 0.25 MobileNet-32 fp32 on onnxruntime);"
        " write the baseline again with `mbbench keep`"
    )


def test_a_modified_baseline_is_refused(misnamed_baseline: Path) -> None:
    (entry,) = baseline.read_manifest(misnamed_baseline)
    (misnamed_baseline / entry.file_name).write_bytes(b"other")
    with pytest.raises(UsageError, match="does not have its recorded SHA-256"):
        check(WIDER, misnamed_baseline, P50, 0.5, quiet)


def test_a_missing_baseline_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no baseline in"):
        baseline.read_manifest(tmp_path)


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mbbench", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_baseline_is_built_from_a_commit(tmp_path: Path) -> None:
    """The checkpoint in the working tree is compared with the committed one: unchanged, then changed."""

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=tmp_path, check=True,
                       capture_output=True)  # fmt: skip

    def save(seed: int) -> None:
        from safetensors.torch import save_file

        from mbbench.models import build, randomize

        module = build(replace(MODEL, classes=10))
        randomize(module, seed=seed)
        save_file(
            {name: tensor.contiguous() for name, tensor in module.state_dict().items()}, tmp_path / "w.safetensors"
        )

    git("init", "--initial-branch=main")
    save(0)
    git("add", ".")
    git("commit", "-m", "first")
    options = ("--alpha", "0.25", "--res", "32", "--backend", "onnxruntime", "--weights", "w.safetensors")
    unchanged = run("check", "--base-ref", "main", *options, "--fail-on", "top1:-0.5pt", folder=tmp_path)
    assert unchanged.returncode == 0, unchanged.stderr
    assert "byte for byte" in unchanged.stdout
    save(1)
    changed = run("check", "--base-ref", "main", *options, "--fail-on", "size:1%", "--format", "json", folder=tmp_path)
    assert changed.returncode == 0, changed.stderr
    (cell,) = msgspec.json.decode(changed.stdout, type=GateRecord).cells
    assert cell.baseline_sha256 != cell.candidate_sha256
    assert cell.verdicts[0].change.change == 0
    unknown = run("check", "--base-ref", "nowhere", *options, folder=tmp_path)
    assert unknown.returncode == 2
    assert unknown.stderr.splitlines()[-1].startswith("error: cannot check out nowhere: ")
    worktrees = subprocess.run(["git", "worktree", "list"], cwd=tmp_path, capture_output=True, text=True).stdout
    assert len(worktrees.splitlines()) == 1


def test_one_run_of_the_command_writes_every_format(
    misnamed_baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs: list[Any] = []
    for name in ("gate.json", "gate.md", "gate.xml"):
        outputs += ["--output", str(tmp_path / name)]
    arguments = ["--baseline", str(misnamed_baseline), "--res", "32", "--alpha", "1.0", "--backend", "onnxruntime"]
    arguments += ["--weights", "random", "--fail-on", "size:1%"]
    monkeypatch.setattr(sys, "argv", ["mbbench", "check", *arguments, *outputs])
    with pytest.raises(SystemExit) as caught:
        app.main()
    assert caught.value.code == 3
    printed = capsys.readouterr()
    assert "FAIL, 1 of 1 cells: 1.0 MobileNet-32 on onnxruntime (Size +" in printed.out
    assert printed.err.splitlines()[-1] == (
        "error: 1 of 1 cells are worse than their limits allow; see the table, or raise --fail-on"
    )
    record = msgspec.json.decode((tmp_path / "gate.json").read_bytes(), type=GateRecord)
    assert record.outcome == "fail"
    assert msgspec.json.decode((tmp_path / "gate.json").read_bytes())["outcome"] == "fail"
    assert (tmp_path / "gate.md").read_text().startswith("**FAIL, 1 of 1 cells")
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    assert suite[0][0].tag == "failure"
    assert (tmp_path / "gate.xml").read_text() == junit.render_gate(record)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "check needs exactly one baseline; give either --baseline DIR or --base-ref REF"),
        (["--baseline", "x", "--base-ref", "main"], "check needs exactly one baseline"),
        (["--baseline", "x", "--time", "0s"], "--time is out of range: 0s; give a time from 1s to 1h"),
        (
            ["--baseline", "x", "--output", "a.html"],
            "a.html has no known format; end its name with one of .json, .md, .xml",
        ),
        (["--baseline", "x"], "there is no baseline in x"),
    ],
)
def test_invalid_options_are_reported_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mbbench", "check", *arguments])
    with pytest.raises(SystemExit) as caught:
        app.main()
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
