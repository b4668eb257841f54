from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from mbbench.errors import UsageError
from mbbench.families import FAMILIES
from mbbench.models import build
from mbbench.spec import ModelSpec
from mbbench.weights import checkpoint

STATE = {"features.weight": torch.arange(6.0).reshape(2, 3), "classifier.weight": torch.ones(7, 2)}


class RunsCode:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def encode(content: object, rest: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text + rest


def equals_state(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(torch.equal(state[name], STATE[name]) for name in STATE)


def test_a_saved_checkpoint_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.safetensors"
    checkpoint.save(path, STATE, {"spec": "{}"})
    assert equals_state(checkpoint.read_state(path))
    assert equals_state(checkpoint.read(path).tensors)
    assert checkpoint.read(path).notes == ()
    assert checkpoint.is_intact(path)
    assert list(path.parent.iterdir()) == [path]


def test_the_file_does_not_depend_on_the_memory_layout(tmp_path: Path) -> None:
    kernel = torch.randn(4, 3, 3, 3)
    checkpoint.save(tmp_path / "a.safetensors", {"k": kernel}, {})
    checkpoint.save(tmp_path / "b.safetensors", {"k": kernel.to(memory_format=torch.channels_last)}, {})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("key", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_are_read(tmp_path: Path, key: str | None, zipped: bool) -> None:
    path = tmp_path / "x.pth"
    content = STATE if key is None else {"epoch": 3, "optimizer": {"lr": [0.1]}, key: STATE}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    state = checkpoint.read(path)
    assert equals_state(state.tensors)
    assert state.notes == (() if key is None else (f"read from {key}",))


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_the_format_is_that_of_the_content_not_of_the_name(tmp_path: Path, name: str) -> None:
    if name == "x.pt":
        checkpoint.save(tmp_path / name, STATE, {"spec": '{"alpha": 0.5, "variant": "standard"}'})
    else:
        torch.save(STATE, tmp_path / name)
    assert equals_state(checkpoint.read(tmp_path / name).tensors)
    saved = checkpoint.read_architecture(tmp_path / name)
    assert (None if saved is None else saved.alpha) == (0.5 if name == "x.pt" else None)


def test_the_options_of_a_training_script_may_lie_next_to_the_weights(tmp_path: Path) -> None:
    """timm's training script saves its options as a Namespace."""
    torch.save({"state_dict": STATE, "args": argparse.Namespace(lr=0.1)}, tmp_path / "x.pth")
    assert equals_state(checkpoint.read(tmp_path / "x.pth").tensors)


@pytest.mark.parametrize("layout", ["zip", "legacy", "pickle", "nested"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path: Path, layout: str, suffix: str) -> None:
    path, trace = tmp_path / f"x{suffix}", tmp_path / "the code ran"
    match layout:
        case "zip":
            torch.save({**STATE, "extra": RunsCode(trace)}, path)
        case "nested":
            torch.save({"state_dict": STATE, "args": RunsCode(trace)}, path)
        case "legacy":
            torch.save(RunsCode(trace), path, _use_new_zipfile_serialization=False)
        case "pickle":
            path.write_bytes(pickle.dumps(RunsCode(trace), protocol=2))
    with pytest.raises(UsageError) as caught:
        checkpoint.read(path)
    what = "is a bare pickle" if layout == "pickle" else "pickles objects other than tensors (posix.mkdir)"
    assert str(caught.value) == (
        f"{path} {what}, which could run code; save only its tensors: torch.save(module.state_dict(), 'FILE.pt')"
    )
    assert not trace.exists()
    assert pickle.loads(pickle.dumps(RunsCode(trace))) is None
    assert trace.exists()  # unpickling would have run the code


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_an_unreadable_file_gives_one_line_that_names_it(tmp_path: Path, suffix: str) -> None:
    intact = tmp_path / f"intact{suffix}"
    if suffix == ".pt":
        torch.save(STATE, intact)
    else:
        checkpoint.save(intact, STATE, {})
    (tmp_path / f"empty{suffix}").touch()
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"text{suffix}").write_text("hello world, this is not a checkpoint")
    for length in (1, 10, 60, intact.stat().st_size // 2, intact.stat().st_size - 1):
        (tmp_path / f"{length}{suffix}").write_bytes(intact.read_bytes()[:length])
    intact.unlink()
    bad = [*sorted(tmp_path.iterdir()), tmp_path / f"missing{suffix}"]
    assert len(bad) == 9
    for path in bad:
        with warnings.catch_warnings(), pytest.raises(UsageError) as caught:
            warnings.simplefilter("error")
            checkpoint.read(path)
        assert str(path) in caught.value.cause
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        encode(b"[[["),
        encode(b'{"a":' + b"[" * 200_000),
        encode(b"\xff\xff"),
        encode([]),
        encode({}),
        encode({"a": 1}),
        encode({"a": {"data_offsets": [0, 0]}}),
        encode({"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]}}, bytes(4)),
        encode({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, bytes(4)),
        encode({"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]}}, bytes(4)),
        encode({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}, bytes(4)),
        encode({"a": {"dtype": "nonsense", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        encode({"__metadata__": {"a": "b"}}),
        (2**63).to_bytes(8, "little") + b"{}",
    ],
)
def test_an_invalid_header_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"x\.safetensors"):
        checkpoint.read_state(path)
    with pytest.raises(UsageError, match=r"x\.safetensors"):
        checkpoint.read(path)


def test_is_intact_is_false_for_truncated_files(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    assert not checkpoint.is_intact(path)
    checkpoint.save(path, STATE, {})
    content = path.read_bytes()
    for damaged in (content[:-1], content + b"\0", content[:50], b""):
        path.write_bytes(damaged)
        assert not checkpoint.is_intact(path)


@pytest.mark.parametrize("content", [[torch.ones(2)], {}, torch.ones(2), {"state_dict": {}}, {"a": 1}])
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UsageError, match=r"x\.pt has no state dict"):
        checkpoint.read(tmp_path / "x.pt")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_number_of_classes_is_that_of_the_classifiers_rows(family: str) -> None:
    with torch.device("meta"):
        network = build(ModelSpec(family, resolution=96, classes=3))
    assert checkpoint.count_classes(network.state_dict(), family) == 3


def test_a_classifier_of_unknown_name_or_shape_has_no_number_of_classes() -> None:
    for state in ({"fc.weight": torch.ones(3, 4)}, {"classifier.weight": torch.ones(3)}):
        assert checkpoint.count_classes(state, "mobilenet_v1") is None


def pickled_module(path: Path, *, zipped: bool) -> None:
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), path, _use_new_zipfile_serialization=zipped)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_module_is_called_so(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "net.pt"
    pickled_module(path, zipped=zipped)
    classes = "torch.nn.modules.container.Sequential" + ", torch.nn.modules.linear.Linear" * zipped
    with pytest.raises(UsageError) as caught:
        checkpoint.read(path)
    assert str(caught.value) == (
        f"{path} pickles a whole module ({classes}), which could run code;"
        " save only its tensors: torch.save(module.state_dict(), 'FILE.pt')"
    )


def test_a_full_disk_gives_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    """A limit of 1000 bytes on the child's files stands in for the full disk."""
    code = (
        "import resource, sys, torch; from pathlib import Path; from mbbench.weights import checkpoint;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "checkpoint.save(Path(sys.argv[1]), {'a': torch.zeros(5000)}, {})"
    )
    path = tmp_path / "x.safetensors"
    child = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert child.stderr.splitlines()[-1] == (
        f"mbbench.errors.UsageError: cannot write {path} (File too large); check its folder, or set MBBENCH_CACHE"
    )
    assert list(tmp_path.iterdir()) == []
