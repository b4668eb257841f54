"""What the documents say is so."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from mbbench.cli import app

CONTRIBUTING = Path(__file__).parent.parent / "CONTRIBUTING.md"
_HEADER = """# Commands

Every command's own help, written by `pytest --golden` and held true by `tests/test_docs.py`.
"""


def test_every_help_is_in_the_docs(
    golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    names = [command.callback.__name__ for command in app.app.registered_commands if command.callback is not None]
    blocks = [_HEADER]
    for command in (["mbbench"], *(["mbbench", name] for name in names)):
        monkeypatch.setattr(sys, "argv", [*command, "--help"])
        with pytest.raises(SystemExit):
            app.main()
        text = "\n".join(line.rstrip() for line in capsys.readouterr().out.strip("\n").splitlines())
        blocks.append(f"## {' '.join(command)}\n\n```text\n{text}\n```\n")
    golden("\n".join(blocks), "docs/commands.md")


def test_the_backend_in_contributing_passes_the_conformance_suite(tmp_path: Path) -> None:
    blocks = dict(re.findall(r"^`?([^\n]*)\n\n```(?:toml|python)\n(.*?)^```", CONTRIBUTING.read_text(), re.M | re.S))
    project, module, test = blocks.values()
    (entry_point,) = re.findall(r'^\[project.entry-points."mbbench.backends"\]\n(.*)$', project, re.M)
    metadata = tmp_path / "mbbench_reference-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mbbench-reference\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[mbbench.backends]\n{entry_point.replace(chr(34), '')}\n")
    (tmp_path / "mbbench_reference.py").write_text(module)
    (tmp_path / "test_reference.py").write_text(test)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "test_reference.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "13 passed" in done.stdout


def _github(job: Any) -> list[str]:
    return [step["run"] for step in job["jobs"]["gate"]["steps"] if step.get("name") in ("Gate", "Summary")]


def _gitlab(job: Any) -> list[str]:
    return list(job["mbbench"]["script"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "steps", "branch", "written"),
    [
        ("github-actions.yml", _github, "GITHUB_BASE_REF", ["gate.xml", "summary.md"]),
        ("gitlab-ci.yml", _gitlab, "CI_MERGE_REQUEST_TARGET_BRANCH_NAME", ["gate.xml"]),
    ],
)
def test_the_ci_jobs_run_as_shell_scripts(
    file: str, steps: Callable[[Any], list[str]], branch: str, written: list[str], tmp_path: Path
) -> None:
    """All but their installation, in a clone whose branch changes nothing: the gate is green."""
    import yaml

    root, clone = CONTRIBUTING.parent, tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(root), str(clone)], check=True)
    subprocess.run(["git", "update-ref", "refs/remotes/origin/target", "HEAD"], cwd=clone, check=True)
    (clone / ".venv").symlink_to(Path(sys.executable).parent.parent)
    summary = clone / "summary.md"
    environment = {**os.environ, branch: "target", "GITHUB_STEP_SUMMARY": str(summary), "PYTHONPATH": str(clone)}
    for step in steps(yaml.safe_load((root / "docs" / file).read_text())):
        done = subprocess.run(["sh", "-ec", step], cwd=clone, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    suite = ElementTree.parse(clone / "gate.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("5", "0")
    assert all((clone / name).read_text() for name in written)
