"""Baselines kept and checked on ONNX Runtime, from the file to the exit code."""

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
from mbbench.check import check, keep, verdict
from mbbench.cli import app
from mbbench.compare import baseline
from mbbench.compare.changes import limits
from mbbench.compare.record import Checked
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
P50 = limits(["p50:3%"])


def quiet(_: Event) -> None:
    pass


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    keep(SPEC, folder, quiet)
    return folder


@pytest.fixture
def slower(kept: Path, tmp_path: Path) -> Path:
    """A baseline that calls itself 1.0 MobileNet and is really the 0.25 one: four times the width is the change."""
    folder = tmp_path / "slower"
    entries = baseline.load(kept)
    renamed = [
        replace(entry, cell=replace(entry.cell, model=replace(entry.cell.model, alpha=1.0))) for entry in entries
    ]
    folder.mkdir()
    (folder / "baseline.json").write_bytes(msgspec.json.encode(renamed))
    for entry in entries:
        (folder / entry.file).write_bytes((kept / entry.file).read_bytes())
    return folder


def test_what_is_kept_is_named_by_its_content(kept: Path) -> None:
    (entry,) = baseline.load(kept)
    assert sorted(path.name for path in kept.iterdir()) == sorted(["baseline.json", entry.file])
    assert entry.file == f"{entry.artifact.sha256[:16]}.onnx"
    assert entry.versions["onnxruntime"]


def test_keeping_anew_leaves_nothing_old_and_nothing_else_out(tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_bytes(b"somebody's")
    keep(SPEC, tmp_path, quiet)
    (before,) = baseline.load(tmp_path)
    keep(WIDER, tmp_path, quiet)
    (after,) = baseline.load(tmp_path)
    assert before.file != after.file
    assert not (tmp_path / before.file).exists()
    assert (tmp_path / "mine.onnx").read_bytes() == b"somebody's"


def test_the_same_file_passes_unmeasured(kept: Path) -> None:
    events: list[Event] = []
    checked = check(SPEC, kept, limits(["p50:3%", "size:1%"]), 0.5, events.append)
    (cell,) = checked.cells
    assert (checked.outcome, cell.rounds) == ("pass", ())
    assert {found.change.reason for found in cell.verdicts} == {"the artifact is the baseline's, byte for byte"}
    assert not any(isinstance(event, Measuring) for event in events)
    verdict(checked, strict=True)


def test_a_slower_network_fails_after_two_rounds(slower: Path) -> None:
    events: list[Event] = []
    checked = check(WIDER, slower, P50, 0.5, events.append)
    (cell,) = checked.cells
    assert sum(isinstance(event, Measuring) for event in events) == len(cell.rounds) == 2
    (found,) = cell.verdicts
    assert (found.outcome, found.confirmed) == ("fail", True)
    assert found.change.change is not None and found.change.change > 1
    with pytest.raises(RegressionError) as caught:
        verdict(checked, strict=False)
    assert caught.value.exit_code == 3


def test_a_bigger_file_fails_without_a_second_round(slower: Path) -> None:
    checked = check(WIDER, slower, limits(["size:1%", "rss:300%"]), 0.5, quiet)
    (cell,) = checked.cells
    assert len(cell.rounds) == 1
    assert [found.outcome for found in cell.verdicts] == ["fail", "pass"]


def test_only_strict_minds_what_is_inconclusive(slower: Path) -> None:
    checked = check(WIDER, slower, limits(["top1:-0.5pt"]), 0.5, quiet)
    assert checked.outcome == "inconclusive"  # random weights have no accuracy
    verdict(checked, strict=False)
    with pytest.raises(InconclusiveError) as caught:
        verdict(checked, strict=True)
    assert caught.value.exit_code == 4


@pytest.mark.usefixtures("faulty_backends")
def test_a_cell_that_cannot_be_measured_leaves_the_others_their_verdicts(kept: Path, tmp_path: Path) -> None:
    """The same two files on a runtime that gives NaN, beside the sound one."""
    broken = replace(SPEC, cells=(*SPEC.cells, replace(SPEC.cells[0], backend="faulty-nan")))
    keep(broken, tmp_path, quiet)
    for entry in baseline.load(tmp_path):
        other = onnx.load(tmp_path / entry.file)
    other.doc_string = "other bytes"
    content = other.SerializeToString()
    exported = tmp_path / "other"
    exported.write_bytes(content)
    info = replace(entry.artifact, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    cells: list[tuple[Cell, Exported, dict[str, str]]] = [(cell, Exported(exported, info), {}) for cell in broken.cells]
    baseline.keep(tmp_path, cells)
    checked = check(broken, tmp_path, limits(["size:1%", "top1:-100pt"]), 0.5, quiet)
    sound, faulty = checked.cells
    assert (sound.failure, len(sound.verdicts)) == (None, 2)
    assert faulty.failure is not None and faulty.failure.exit_code == 5
    assert faulty.verdicts == ()
    with pytest.raises(RequirementError):
        verdict(checked, strict=False)
    assert verdicts.headline(checked).endswith("; 1 could not be measured.")
    assert ElementTree.fromstring(junit.render(checked))[1][0][0].tag == "error"


def test_a_cell_without_a_baseline_is_one_line(kept: Path) -> None:
    with pytest.raises(UsageError) as caught:
        check(WIDER, kept, P50, 0.5, quiet)
    assert str(caught.value) == (
        "the baseline has no 1.0 MobileNet-32 fp32 on onnxruntime;"
        " keep it anew; it has 0.25 MobileNet-32 fp32 on onnxruntime"
    )


def test_a_baseline_that_was_changed_is_refused(slower: Path) -> None:
    (entry,) = baseline.load(slower)
    (slower / entry.file).write_bytes(b"other")
    with pytest.raises(UsageError, match="is not the file that was kept"):
        check(WIDER, slower, P50, 0.5, quiet)


def test_no_baseline_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no baseline"):
        baseline.load(tmp_path)


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mbbench", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_baseline_is_built_from_a_commit(tmp_path: Path) -> None:
    """A checkpoint changes between two commits; the working tree's is held against the first one's."""

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
    same = run("check", "--base-ref", "main", *options, "--fail-on", "top1:-0.5pt", folder=tmp_path)
    assert same.returncode == 0, same.stderr
    assert "byte for byte" in same.stdout
    save(1)
    other = run("check", "--base-ref", "main", *options, "--fail-on", "size:1%", "--format", "json", folder=tmp_path)
    assert other.returncode == 0, other.stderr
    (cell,) = msgspec.json.decode(other.stdout, type=Checked).cells
    assert cell.baseline_sha256 != cell.candidate_sha256
    assert cell.verdicts[0].change.change == 0
    gone = run("check", "--base-ref", "nowhere", *options, folder=tmp_path)
    assert gone.returncode == 2
    assert gone.stderr.splitlines()[-1].startswith("error: cannot check out nowhere: ")
    listed = subprocess.run(["git", "worktree", "list"], cwd=tmp_path, capture_output=True, text=True).stdout
    assert len(listed.splitlines()) == 1


def test_the_command_writes_every_format_of_one_run(
    slower: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exports: list[Any] = []
    for name in ("gate.json", "gate.md", "gate.xml"):
        exports += ["--output", str(tmp_path / name)]
    arguments = ["--baseline", str(slower), "--res", "32", "--alpha", "1.0", "--backend", "onnxruntime"]
    arguments += ["--weights", "random", "--fail-on", "size:1%"]
    monkeypatch.setattr(sys, "argv", ["mbbench", "check", *arguments, *exports])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 3
    printed = capsys.readouterr()
    assert "FAIL, 1 of 1 cells: 1.0 MobileNet-32 on onnxruntime (Size +" in printed.out
    assert printed.err.splitlines()[-1] == (
        "error: 1 of 1 cells got worse than allowed; see the table, or raise --fail-on"
    )
    checked = msgspec.json.decode((tmp_path / "gate.json").read_bytes(), type=Checked)
    assert checked.outcome == "fail"
    assert msgspec.json.decode((tmp_path / "gate.json").read_bytes())["outcome"] == "fail"
    assert (tmp_path / "gate.md").read_text().startswith("**FAIL, 1 of 1 cells")
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    assert suite[0][0].tag == "failure"
    assert (tmp_path / "gate.xml").read_text() == junit.render(checked)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "check compares with exactly one baseline; give --baseline DIR or --base-ref REF"),
        (["--baseline", "x", "--base-ref", "main"], "check compares with exactly one baseline"),
        (["--baseline", "x", "--time", "0s"], "--time is out of range: 0s; give 1s to 1h"),
        (
            ["--baseline", "x", "--output", "a.html"],
            "a.html has no known format; end its name with one of .json, .md, .xml",
        ),
        (["--baseline", "x"], "x holds no baseline"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mbbench", "check", *arguments])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
