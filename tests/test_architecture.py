"""Later stages of the pipeline import earlier ones, never the reverse."""

import ast
from collections.abc import Iterator
from pathlib import Path

import mbbench

ROOT = Path(mbbench.__file__).parent
# The packages that each package may import. `cli`, `cluster` and `testing` join stages and may import all.
STAGES: dict[str, set[str]] = {
    "spec": set(),
    "machine": set(),
    "result": set(),
    "nvidia": set(),
    "graphs": set(),
    "models": {"graphs"},
    "data": {"models"},
    "weights": {"models", "data"},
    "compress": {"models", "data", "weights", "graphs"},
    "artifacts": {"models", "data", "weights", "graphs", "compress"},
    "measure": {"models", "data", "nvidia"},
    "analysis": {"models"},
    "fit": {"models", "analysis"},
    "compare": {"artifacts", "measure"},
    "report": {"models", "measure", "analysis", "fit", "compare"},
}
PLAIN_DATA = {"spec", "machine", "result"}  # every module may import it
JOINING = {"cli", "cluster", "testing"}
PROGRAMS = {"plan", "preflight", "run", "sweep", "check", "__main__"}  # modules at the root that join stages


def imports_of(path: Path) -> Iterator[str]:
    """Yield the package or root module of mbbench in every import, including those inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("mbbench."))


def test_packages_import_only_earlier_stages() -> None:
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == STAGES.keys() | JOINING
    for package, earlier in STAGES.items():
        for path in (ROOT / package).rglob("*.py"):
            later = set(imports_of(path)) & (STAGES.keys() | JOINING | PROGRAMS) - earlier - PLAIN_DATA - {package}
            assert not later, f"{path.relative_to(ROOT)} imports {later}"


def test_the_order_of_stages_has_no_cycle() -> None:
    order = list(STAGES)
    assert all(order.index(earlier) < order.index(package) for package in STAGES for earlier in STAGES[package])


def test_only_programs_at_the_root_import_packages() -> None:
    for path in ROOT.glob("*.py"):
        if path.stem not in PROGRAMS:
            packages = set(imports_of(path)) & (STAGES.keys() | JOINING | PROGRAMS) - PLAIN_DATA
            assert not packages, f"{path.name} imports {packages}"


def test_no_module_is_longer_than_300_lines() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in ROOT.rglob("*.py")}
    assert {path: length for path, length in lengths.items() if length > 300} == {}
    assert len(list(ROOT.glob("*.py"))) <= 18
