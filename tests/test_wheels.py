"""mbbench works from wheels: what they hold, and the main job in a new environment without the checkout."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
BACKENDS = sorted(path.parent for path in ROOT.glob("backends/*/pyproject.toml"))
ENTRY_POINTS = {"torch": {"torch", "torch-eager"}}  # a distribution's backends, if not one of its own name


def project(folder: Path) -> dict[str, Any]:
    """Return the table `project` of a folder's pyproject.toml."""
    content: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return content


def build_wheel(folder: Path, target: Path) -> None:
    """Build the wheel of a distribution's folder into `target`."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheels of mbbench and of all backends."""
    target = tmp_path_factory.mktemp("dist")
    for folder in (ROOT, *BACKENDS):
        build_wheel(folder, target)
    return target


def test_every_backend_has_an_extra_of_its_version() -> None:
    core = project(ROOT)
    for folder in BACKENDS:
        backend = project(folder)
        assert backend["version"] == core["version"], folder.name
        assert f"mbbench=={core['version']}" in backend["dependencies"], folder.name
        (requirement,) = core["optional-dependencies"][folder.name]
        assert re.sub(r"\[.*\]", "", requirement) == f"{backend['name']}=={core['version']}"


def test_the_core_has_its_sources_data_and_profiles_and_nothing_else(wheels: Path) -> None:
    version = project(ROOT)["version"]
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "mbbench"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    expected = {*tracked.stdout.splitlines(), *(f"mbbench/profiles/{path.name}" for path in ROOT.glob("profiles/*"))}
    assert {"mbbench/report/formats/page.js", "mbbench/models/imagenet.tsv", "mbbench/profiles/quick.toml"} <= expected
    with zipfile.ZipFile(wheels / f"mbbench-{version}-py3-none-any.whl") as wheel:
        content = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert content == expected


def test_the_wheel_of_a_backend_has_its_modules_and_entry_points(wheels: Path) -> None:
    for folder in BACKENDS:
        backend = project(folder)
        stem = backend["name"].replace("-", "_")
        with zipfile.ZipFile(wheels / f"{stem}-{backend['version']}-py3-none-any.whl") as wheel:
            content = {name for name in wheel.namelist() if ".dist-info/" not in name}
            (entry_points,) = (wheel.read(name).decode() for name in wheel.namelist() if name.endswith("points.txt"))
        modules = {str(path.relative_to(folder)) for path in folder.rglob("mbbench_*.py")}
        modules |= {str(path.relative_to(folder)) for path in folder.glob("mbbench_*/*.py")}
        assert content == modules, folder.name
        names = set(re.findall(r"^([\w-]+) =", entry_points, re.M))
        assert names == ENTRY_POINTS.get(folder.name, {folder.name})


@dataclass(frozen=True, slots=True)
class Installation:
    """A virtual environment with wheels of mbbench, and a folder, outside the checkout, in which its programs run."""

    programs: Path
    packages: Path
    folder: Path

    def run(self, program: str, *arguments: str) -> str:
        """Return what a program of the environment prints; it must exit with 0."""
        return _run(self.folder, str(self.programs / program), *arguments)


def _run(folder: Path, *command: str) -> str:
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    process = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def link_dependencies(target: Path) -> None:
    """Link what is installed here, except mbbench and its backends, into the folder `target`."""
    target.mkdir()
    for path in {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}:
        for entry in path.iterdir():
            if entry.suffix != ".pth" and not entry.name.startswith("mbbench"):
                (target / entry.name).symlink_to(entry)


@pytest.fixture(scope="module")
def installation(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Return a new environment in which pip has installed two extras; it sees the dependencies installed here."""
    root = tmp_path_factory.mktemp("installation")
    environment, dependencies, folder = root / "environment", root / "dependencies", root / "elsewhere"
    venv.create(environment, with_pip=False)
    link_dependencies(dependencies)
    folder.mkdir()
    python = str(environment / "bin" / "python")
    packages = Path(_run(folder, python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (packages / "dependencies.pth").write_text(f"{dependencies}\n")
    pip = [sys.executable, "-m", "pip", "--isolated", "--python", python]
    extras = "mbbench[openvino,onnxruntime]"
    _run(folder, *pip, "install", "--no-index", "--find-links", str(wheels), extras)
    return Installation(environment / "bin", packages, folder)


def test_extras_install_backends_from_wheels(installation: Installation) -> None:
    code = "import mbbench, mbbench_openvino; print(mbbench.__file__, mbbench_openvino.__file__)"
    expected = [installation.packages / "mbbench" / "__init__.py", installation.packages / "mbbench_openvino.py"]
    assert installation.run("python", "-c", code).split() == [str(path) for path in expected]
    backends = json.loads(installation.run("mbbench", "backends", "--format", "json"))
    assert [(backend["name"], backend["error"]) for backend in backends] == [("onnxruntime", None), ("openvino", None)]


@pytest.mark.slow
def test_the_main_job_runs_from_wheels(installation: Installation) -> None:
    options = ["--alpha", "0.25", "--res", "96", "--backend", "openvino", "--profile", "quick"]
    assert "0.25 MobileNet-96 on openvino" in installation.run("mbbench", "run", *options)
    (record,) = map(json.loads, (installation.folder / "reports" / "results.jsonl").read_text().splitlines())
    assert record["failure"] is None
    assert record["measured"]["accuracy"]["images"] == 100  # as in the profile
    assert record["versions"]["mbbench"] == project(ROOT)["version"]
    installation.run("mbbench", "report", "reports/results.jsonl", "-o", "report.html")
    assert "</html>" in (installation.folder / "report.html").read_text()
