"""What a file is, whatever its name says."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from mbbench.errors import UsageError
from mbbench.weights import checkpoint, content

PLAIN = "give a .safetensors file, or a .pt or .pth file of plain tensors"


def onnx_model(path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["x2"])], "g", [value], [value])
    onnx.save(helper.make_model(graph), path)


def exported(path: Path) -> None:
    onnx.save(helper.make_model(helper.make_graph([], "g", [], []), producer_name="pytorch"), path)


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["conv1/kernel"] = np.ones(3)


def keras(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for layer in ("conv1", "conv_dw_1", "conv_pw_13"):
            file[f"{layer}/{layer}/kernel:0"] = np.ones(3)


def archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.ones(1), b=np.ones(1), c=np.ones(1), d=np.ones(1))


def empty_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "")


def torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


def empty(path: Path) -> None:
    path.touch()


def folder(path: Path) -> None:
    path.mkdir()


def page(path: Path) -> None:
    path.write_text("<!DOCTYPE html>\n<title>Sign in – to download</title>")


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


def noise(path: Path) -> None:
    path.write_bytes(bytes(range(255, -1, -1)) * 20)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("suffix", [".onnx", ".pt", ".bin", ".safetensors"])
@pytest.mark.parametrize(
    ("write", "what", "remedy"),
    [
        (onnx_model, "is an ONNX file, not a checkpoint", "give the checkpoint that it was exported from"),
        (exported, "is an ONNX file, not a checkpoint", "give the checkpoint that it was exported from"),
        (hdf5, "is an HDF5 file, but does not hold Keras's MobileNetV1", PLAIN),
        (keras, "holds Keras's MobileNetV1", "give --weights keras:{path}"),
        (archive, "is a zip archive that PyTorch did not write (it holds a.npy, b.npy, c.npy, ...)", PLAIN),
        (empty_archive, "is a zip archive that PyTorch did not write (it holds a.txt)", PLAIN),
        (
            torchscript,
            "is a TorchScript archive, which holds code",
            "save only its tensors: torch.save(torch.jit.load('{path}').state_dict(), 'FILE.pt')",
        ),
        (empty, "is empty: it has 0 bytes", "download or create it again"),
        (folder, "is a folder, not a checkpoint", "give the checkpoint file in it"),
        (
            page,
            "is a text file that starts with '<!DOCTYPE html>'",
            "download or create the checkpoint again",
        ),
        (pointer, "is a pointer of Git LFS, not the file itself", "fetch the file with `git lfs pull`"),
    ],
)
def test_every_other_file_is_called_what_it_is(
    write: Callable[[Path], None], what: str, remedy: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"net{suffix}"
    write(path)
    with pytest.raises(UsageError) as caught:
        checkpoint.read(path)
    assert str(caught.value) == f"{path} {what}; {remedy.format(path=path)}"


def test_of_other_bytes_nothing_is_claimed(tmp_path: Path) -> None:
    noise(tmp_path / "net.pt")
    with pytest.raises(UsageError, match=r"net\.pt is damaged or not a PyTorch checkpoint"):
        checkpoint.read(tmp_path / "net.pt")
    noise(tmp_path / "net.safetensors")
    with pytest.raises(UsageError, match=r"net\.safetensors is not a safetensors file"):
        checkpoint.read(tmp_path / "net.safetensors")


def test_a_fifo_is_named_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.pt")
    with pytest.raises(UsageError, match=r"^cannot read the checkpoint .*x\.pt \(it is a FIFO, not a file\);"):
        content.read_head(tmp_path / "x.pt")
