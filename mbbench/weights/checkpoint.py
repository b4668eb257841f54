"""Reading and writing of checkpoints. Only plain tensors are unpickled, never anything that could run code."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbbench import cache
from mbbench.errors import UsageError
from mbbench.spec import FAMILIES, Family, Padding, Variant

if TYPE_CHECKING:
    from torch import Tensor

_REMEDY = "give a .safetensors file, or a .pt or .pth file of plain tensors"
_HEADER_LIMIT = 100_000_000  # bytes, as in safetensors
_STATE_KEYS = ("state_dict", "model", "model_state_dict")  # under which training scripts save the state dict


class _Tensor(msgspec.Struct, frozen=True):
    """A tensor's entry in a safetensors header. `data_offsets` are the start and end of its bytes in the data."""

    shape: list[int]
    data_offsets: tuple[int, int]


class Architecture(msgspec.Struct, frozen=True):
    """The part of the spec in a checkpoint's metadata that determines the network."""

    alpha: float
    variant: Variant
    padding: Padding = "symmetric"
    widths: tuple[int, ...] | None = None


def save(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write the tensors to a safetensors file, atomically.

    Raises `UsageError` if the disk is full or the folder is not writable.
    """
    from safetensors.torch import save

    content = save({name: tensor.contiguous() for name, tensor in state.items()}, metadata)
    with cache.atomic(path) as temporary:  # not by safetensors' save_file, which hides the OSError of a full disk
        temporary.write_bytes(content)


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the checkpoint's tensors by name.

    Raises `UsageError` if the file is missing, is damaged, or holds anything except plain tensors.
    """
    if path.suffix == ".safetensors":
        _header(path)
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state: dict[str, Tensor] = load_file(path)
        except (OSError, SafetensorError, ValueError) as error:
            raise UsageError(f"cannot read the checkpoint {path} ({_first_sentence(error)})", _REMEDY) from error
        return state
    return _read_torch(path)


def read_classes(path: Path, family: Family) -> int:
    """Return the number of classes: the number of rows of the weight of the family's classifier.

    A classifier is a fully connected layer or a 1x1 convolution. Raises `UsageError`.
    """
    if path.suffix == ".safetensors":
        shapes = {name: entry.shape for name, entry in _header(path)[0].items()}
    else:
        shapes = {name: list(tensor.shape) for name, tensor in _read_torch(path).items()}
    shape = shapes.get(FAMILIES[family].classifier, [])
    if len(shape) not in (2, 4):
        raise UsageError(f"{path} has no classifier layer of a known name", "give a checkpoint that matches --model")
    return int(shape[0])


def read_architecture(path: Path) -> Architecture | None:
    """Return the architecture that the checkpoint records, or None.

    Only checkpoints that mbbench writes record it. Raises `UsageError` if the file is missing or damaged.
    """
    if path.suffix != ".safetensors":
        return None
    try:
        return msgspec.json.decode(_header(path)[1].get("spec", ""), type=Architecture)
    except msgspec.MsgspecError:
        return None  # there is no `spec`, or it is another program's


def is_intact(path: Path) -> bool:
    """Return whether the safetensors file exists and has the length that its header implies. Does not load torch."""
    try:
        _header(path)
    except UsageError:
        return False
    return True


def _header(path: Path) -> tuple[dict[str, _Tensor], dict[str, str]]:
    """Return the tensors and the metadata in the header of a safetensors file.

    The file starts with the length of the header in eight bytes; the header is JSON. Raises `UsageError`.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entries = msgspec.json.decode(file.read(min(length, _HEADER_LIMIT)), type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(entries.pop("__metadata__", msgspec.Raw(b"{}")), type=dict[str, str])
        header = {name: msgspec.json.decode(entry, type=_Tensor) for name, entry in entries.items()}
    except OSError as error:
        raise UsageError(f"cannot read the checkpoint {path} ({error.strerror})", _REMEDY) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not a safetensors file", _REMEDY) from error
    if not header:
        raise UsageError(f"the checkpoint {path} is empty", _REMEDY)
    if size != 8 + length + max(entry.data_offsets[1] for entry in header.values()):
        raise UsageError(f"the checkpoint {path} is truncated or damaged", "download or create it again")
    return header, metadata


def _read_torch(path: Path) -> dict[str, Tensor]:
    import pickle

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error below is enough
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"cannot read the checkpoint {path} ({error.strerror or error})", _REMEDY) from error
    except pickle.UnpicklingError as error:
        raise UsageError(f"{path} pickles objects other than tensors, which could run code", _REMEDY) from error
    except Exception as error:  # a damaged file can raise any exception in the unpickler
        raise UsageError(
            f"{path} is damaged or not a PyTorch checkpoint ({_first_sentence(error)})", _REMEDY
        ) from error
    for name in _STATE_KEYS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise UsageError(f"{path} has no state dict", _REMEDY)
    return content


def _first_sentence(error: Exception) -> str:
    """Return the first sentence of the message. In torch's messages, the next ones advise disabling `weights_only`."""
    return (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]
