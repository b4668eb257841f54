"""What a file is, by its first bytes: one true line about every file that is not a checkpoint."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from mbbench import cache
from mbbench.errors import UsageError
from mbbench.weights import hdf5

REMEDY = "give a .safetensors file, or a .pt or .pth file of plain tensors"
SAVE_TENSORS = "save only its tensors: torch.save(module.state_dict(), 'FILE.pt')"
_HEAD_BYTES = 4096
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_TORCH_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # torch's magic number as a pickle, before PyTorch 1.6
_ONNX_FIELDS = b"\x12\x1a\x22\x28\x32\x3a\x42"  # what may follow ir_version in onnx.ModelProto
_LFS = b"version https://git-lfs"


def checkpoint_format(path: Path) -> Literal["safetensors", "pytorch"]:
    """Return the format of a checkpoint.

    Raises `UsageError` if the file cannot be read, is empty, or is known to be something else, which the error names.
    """
    head = read_head(path)
    if head[:4] == _ZIP:
        _refuse_other_archives(path)
        return "pytorch"
    if head[8:9] == b"{" and not _is_text(head):
        return "safetensors"
    if head.startswith(hdf5.SIGNATURE):
        raise _hdf5_error(path)
    if head[:1] == b"\x08" and len(head) > 2 and head[1] < 128 and head[2] in _ONNX_FIELDS:
        raise UsageError(f"{path} is an ONNX file, not a checkpoint", "give the checkpoint that it was exported from")
    if head[:1] == _PICKLE and not head.startswith(_TORCH_LEGACY):
        raise UsageError(f"{path} is a bare pickle, which could run code", SAVE_TENSORS)
    if head.startswith(_LFS):
        raise UsageError(f"{path} is a pointer of Git LFS, not the file itself", "fetch the file with `git lfs pull`")
    if _is_text(head):
        start = head.decode(errors="replace").split("\n")[0].strip()[:40]
        raise UsageError(f"{path} is a text file that starts with {start!r}", "download or create the checkpoint again")
    return "safetensors" if path.suffix == ".safetensors" and head[:1] != _PICKLE else "pytorch"


def read_head(path: Path) -> bytes:
    """Return the first bytes of the file, at least one. Raises `UsageError` if there are none."""
    try:
        with cache.open_file(path) as file:
            head = file.read(_HEAD_BYTES)
    except IsADirectoryError as error:
        raise UsageError(f"{path} is a folder, not a checkpoint", "give the checkpoint file in it") from error
    except OSError as error:
        raise UsageError(f"cannot read the checkpoint {path} ({error.strerror})", REMEDY) from error
    if not head:
        raise UsageError(f"{path} is empty: it has 0 bytes", "download or create it again")
    return head


def _refuse_other_archives(path: Path) -> None:
    """Raise `UsageError` if the zip archive is not PyTorch's. A damaged one is left to PyTorch's reader."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        remedy = SAVE_TENSORS.replace("module", f"torch.jit.load({str(path)!r})")
        raise UsageError(f"{path} is a TorchScript archive, which holds code", remedy)
    if {"config.json", "model.weights.h5"} <= set(names):
        raise UsageError(f"{path} is a Keras archive (.keras)", hdf5.SAVE_MODEL)
    if "data.pkl" not in inner:
        listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise UsageError(f"{path} is a zip archive that PyTorch did not write (it holds {listed or 'nothing'})", REMEDY)


def _hdf5_error(path: Path) -> UsageError:
    if hdf5.holds_mobilenet(path):
        return UsageError(f"{path} holds Keras's MobileNetV1", f"give --weights keras:{path}")
    return UsageError(f"{path} is an HDF5 file, but does not hold Keras's MobileNetV1", REMEDY)


def _is_text(head: bytes) -> bool:
    """Return whether the bytes are UTF-8 text, of which the last character may be cut off."""
    controls = sum(byte < 32 and byte not in b"\t\n\r\f" for byte in head)
    return controls == 0 and head.decode(errors="replace").count("\ufffd") <= 1
