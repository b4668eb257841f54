"""The lists of packages cover what mbbench, its backends for GPUs and their tests need."""

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tools" / "gpu-check"


def names(requirements: list[str]) -> set[str]:
    """Return the names of the distributions in lines of requirements, without comments and mbbench itself."""
    found = {match[0].lower() for line in requirements if (match := re.match(r"[A-Za-z0-9._-]+", line)) is not None}
    return {name for name in found if not name.startswith("mbbench")}


def listed(file: str) -> set[str]:
    return names((FOLDER / file).read_text().splitlines())


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text())


def test_everything_needed_is_packed_or_present() -> None:
    needed = {"pytest"}
    for folder in (ROOT, *(ROOT / "backends" / name for name in ("torch", "onnxruntime", "tensorrt"))):
        content = project(folder)
        needed |= names(content["build-system"]["requires"]) | names(content["project"]["dependencies"])
    for name, extra in (("torch", "cuda"), ("tensorrt", "rtx")):
        needed |= names(project(ROOT / "backends" / name)["project"]["optional-dependencies"][extra])
    assert needed <= listed("wheels.txt") | listed("present.txt")
    assert listed("wheels.txt").isdisjoint(listed("present.txt"))
