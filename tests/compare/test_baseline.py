"""The manifest of a baseline, which decides which files are read and replaced."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mbbench.compare import baseline
from mbbench.compare.baseline import BaselineEntry
from mbbench.errors import UsageError
from mbbench.result import Result


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("sha256", "../../etc/passwd", "Expected `str` matching regex"),
        ("format", "/../x", "Expected `str` matching regex"),
        ("size_bytes", -1, "Expected `int` >= 0"),
    ],
)
def test_an_entry_cannot_name_a_file_outside_the_folder(
    make_result: Callable[..., Result], tmp_path: Path, name: str, value: object, reason: str
) -> None:
    result = make_result()
    assert result.artifact is not None
    entry = msgspec.to_builtins(BaselineEntry(cell=result.cell, artifact=result.artifact, versions={}))
    manifest = tmp_path / "baseline.json"
    manifest.write_bytes(msgspec.json.encode([entry]))
    assert baseline.read_manifest(tmp_path)[0].file_name == "ee.onnx"
    entry["artifact"][name] = value
    manifest.write_bytes(msgspec.json.encode([entry]))
    with pytest.raises(UsageError, match=rf"^the manifest {manifest} is damaged: {reason}"):
        baseline.read_manifest(tmp_path)


def test_an_unknown_family_in_a_manifest_is_named_with_its_file(
    make_result: Callable[..., Result], tmp_path: Path
) -> None:
    result = make_result()
    assert result.artifact is not None
    entry = msgspec.to_builtins(BaselineEntry(cell=result.cell, artifact=result.artifact, versions={}))
    entry["cell"]["model"]["family"] = "zzz"
    (tmp_path / "baseline.json").write_bytes(msgspec.json.encode([entry]))
    with pytest.raises(UsageError, match=r"^the manifest .*baseline.json is damaged: unknown model: 'zzz'; write one"):
        baseline.read_manifest(tmp_path)
