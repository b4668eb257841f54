"""`mbbench keep` and `mbbench check` on ONNX Runtime, from the files to the exit code."""

import contextlib
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
from mbbench.check import _Pair, check, keep, raise_for_outcome
from mbbench.cli import app
from mbbench.compare import baseline
from mbbench.compare.changes import Change, parse_limits
from mbbench.compare.gate import Outcome, Verdict
from mbbench.compare.noise import Floor, Noise
from mbbench.compare.record import CellVerdict, GateRecord
from mbbench.errors import InconclusiveError, MbbenchError, RegressionError, RequirementError, UsageError
from mbbench.events import Event, Measuring
from mbbench.machine import fingerprint
from mbbench.report.formats import junit
from mbbench.report.sections import verdicts
from mbbench.result import Failure
from mbbench.spec import Cell, ModelSpec, RunSpec, Settings
from tests.compare.test_gate import readings

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
    record = check(WIDER, misnamed_baseline, parse_limits(["size:1%", "rss:300%", "added-rss:900%"]), 0.5, quiet)
    (cell,) = record.cells
    assert len(cell.rounds) == 1
    assert [verdict.outcome for verdict in cell.verdicts] == ["fail", "pass", "pass"]
    _, rss, added = (verdict.change for verdict in cell.verdicts)
    for peak, addition in ((rss.baseline, added.baseline), (rss.candidate, added.candidate)):
        assert peak is not None and addition is not None and 10e6 < peak - addition < 200e6  # the process's start


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
    entries = baseline.read_manifest(tmp_path)
    entry = entries[0]
    model = onnx.load(tmp_path / entry.file_name)
    model.doc_string = "changes the bytes"
    content = model.SerializeToString()
    path = tmp_path / "changed.onnx"
    path.write_bytes(content)
    info = replace(entry.artifact, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    baseline.write(tmp_path, [(kept.cell, Exported(path, info), {}) for kept in entries])
    record = check(spec, tmp_path, parse_limits(["size:1%", "top1:-100pt"]), 0.5, quiet)
    sound, faulty = record.cells
    assert (sound.failure, len(sound.verdicts)) == (None, 2)
    assert faulty.failure is not None and faulty.failure.exit_code == 5
    assert faulty.verdicts == ()
    with pytest.raises(RequirementError):
        raise_for_outcome(record, strict=False)
    assert record.outcome == "error"
    assert verdicts.headline(record).startswith("ERROR, 1 of 2 cells: 0.25 MobileNet-32 on faulty-nan (")
    assert ElementTree.fromstring(junit.render_gate(record))[1][0][0].tag == "error"


def record_of(*cells: CellVerdict) -> GateRecord:
    return GateRecord(
        schema=1, time_utc="2026-01-01T00:00:00+00:00", machine=fingerprint(), versions={}, conditions=(), cells=cells
    )


def failed_cell(exit_code: int) -> CellVerdict:
    """A cell that could not be measured."""
    failure = Failure(cause="killed", remedy="free memory", exit_code=exit_code)
    return CellVerdict(
        cell=SPEC.cells[0], baseline_sha256="a", candidate_sha256="b", rounds=(), verdicts=(), noise=None,
        failure=failure,
    )  # fmt: skip


def judged_cell(outcome: Outcome) -> CellVerdict:
    change = Change(metric="size", baseline=1000, candidate=1100, change=0.1)
    verdict = Verdict(change=change, limit=parse_limits(["size:1%"])[0], outcome=outcome)
    return replace(failed_cell(7), failure=None, verdicts=(verdict,))


@pytest.mark.parametrize(
    ("cells", "exit_code"),
    [
        ([failed_cell(7)], 7),
        ([failed_cell(6)], 6),
        ([failed_cell(5)], 5),
        ([failed_cell(1)], 7),  # an unexpected error
        ([judged_cell("inconclusive"), failed_cell(6), failed_cell(5)], 6),
        ([failed_cell(7), judged_cell("fail")], 3),
        ([judged_cell("inconclusive"), judged_cell("pass")], 4),
    ],
)
def test_the_exit_code_is_that_of_the_worst_cell(cells: list[CellVerdict], exit_code: int) -> None:
    with pytest.raises(MbbenchError) as caught:
        raise_for_outcome(record_of(*cells), strict=True)
    assert caught.value.exit_code == exit_code


def test_a_check_without_a_measured_cell_says_error_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mbbench.check.check", lambda *_: record_of(failed_cell(6)))
    arguments = ["mbbench", "check", "--baseline", str(tmp_path)]
    for name in ("gate.json", "gate.md", "gate.xml"):
        arguments += ["--output", str(tmp_path / name)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as caught:
        app.main()
    assert caught.value.code == 6
    printed = capsys.readouterr()
    assert printed.out.lstrip().startswith("ERROR, 1 of 1 cells: 0.25 MobileNet-32 on onnxruntime (killed).\n")
    assert printed.err.splitlines()[-1] == "error: killed; free memory"
    assert msgspec.json.decode((tmp_path / "gate.json").read_bytes())["outcome"] == "error"
    assert (tmp_path / "gate.md").read_text().startswith("**ERROR, 1 of 1 cells")
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "0", "1")


@pytest.mark.parametrize("options", [[], ["--profile", "quick"], ["--backend", "onnxruntime", "--precision", "int8"]])
def test_keep_and_check_plan_the_same_cells(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs: list[RunSpec] = []

    def record(spec: RunSpec, *_: object) -> GateRecord:
        specs.append(spec)
        return record_of(judged_cell("pass"))

    monkeypatch.setattr("mbbench.check.keep", record)
    monkeypatch.setattr("mbbench.check.check", record)
    for command in (["keep", str(tmp_path)], ["check", "--baseline", str(tmp_path)]):
        monkeypatch.setattr(sys, "argv", ["mbbench", *command, *options])
        with contextlib.suppress(SystemExit):
            app.main()
    kept, checked = specs
    assert kept == checked
    if not options:
        assert [cell.model.label for cell in kept.cells] == ["0.25 MobileNet-128"]


def test_the_calibrated_noise_of_memory_has_the_degrees_of_freedom_of_its_rounds() -> None:
    """One of 20 rounds of calibration did not report memory: Student's t with 18 degrees of freedom."""
    floor = Floor(within=0.01, between=0.02, detectable=0.04, rounds=19)
    calibrated = Noise(time_utc="2026", rounds=20, seconds=5.0, floors={"rss": floor})
    artifact: Any = None
    pair = _Pair(artifact, artifact, artifact, calibrated, rounds=[readings(candidate_rss_bytes=102_000_000)])
    (finding,) = pair.findings(parse_limits(["rss:5%"]))
    half_width = 2.1009220402 * 0.01  # t(0.975, 18)
    assert finding.overall.ci95 is not None
    assert finding.overall.ci95.low == pytest.approx(0.02 - half_width, rel=1e-6)
    assert finding.overall.ci95.high == pytest.approx(0.02 + half_width, rel=1e-6)


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
    """The checkpoint in the working tree is compared with the committed one: unchanged, then changed.

    A folder called `digits`, which is not the data set, changes nothing.
    """
    (tmp_path / "digits").mkdir()

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
        (["--baseline", "x", "--time", "0s"], "--time is out of range: 0s; give 1s to 3600s"),
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
