"""Reading and writing checkpoints. Nothing that could run code is ever unpickled."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbbench import cache
from mbbench.errors import UsageError
from mbbench.spec import Padding, Variant

if TYPE_CHECKING:
    from torch import Tensor

_REMEDY = "give a .safetensors file, or a .pt or .pth file of plain tensors"
_HEADER_LIMIT = 100_000_000  # bytes; what safetensors itself allows
CLASSIFIERS = ("classifier.weight", "classifier.6.weight", "fc.weight")  # whose rows are the classes
_NESTED = ("state_dict", "model", "model_state_dict")


class _Tensor(msgspec.Struct, frozen=True):
    """A tensor's entry in a safetensors header; its bytes are those from the first offset to the second."""

    shape: list[int]
    data_offsets: tuple[int, int]


class Architecture(msgspec.Struct, frozen=True):
    """What of the spec that mbbench writes into a checkpoint the network depends on."""

    alpha: float
    variant: Variant
    padding: Padding = "symmetric"
    widths: tuple[int, ...] | None = None


def save(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write the tensors whole or not at all; raises `UsageError` where the disk is full or the folder not writable."""
    from safetensors.torch import save

    content = save({name: tensor.contiguous() for name, tensor in state.items()}, metadata)
    with cache.atomic(path) as temporary:  # safetensors' own save_file hides the OSError of a full disk
        temporary.write_bytes(content)


def load(path: Path) -> dict[str, Tensor]:
    """The tensors by name; raises `UsageError` for a file that is missing, damaged, or not plain tensors."""
    if path.suffix == ".safetensors":
        _header(path)
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state: dict[str, Tensor] = load_file(path)
        except (OSError, SafetensorError, ValueError) as error:
            raise UsageError(f"cannot read the checkpoint {path} ({_first_line(error)})", _REMEDY) from error
        return state
    return _load_torch(path)


def classes_in(path: Path) -> int:
    """How many classes the checkpoint tells apart: the rows of its last matrix (Linear) weight."""
    if path.suffix == ".safetensors":
        shapes = {name: entry.shape for name, entry in _header(path)[0].items()}
    else:
        shapes = {name: list(tensor.shape) for name, tensor in _load_torch(path).items()}
    matrices = [shapes[name] for name in shapes if name in CLASSIFIERS]
    if not matrices or len(matrices[0]) != 2:
        raise UsageError(f"{path} has no classifier that mbbench knows", "give a checkpoint of the model of --model")
    return int(matrices[0][0])


def architecture_in(path: Path) -> Architecture | None:
    """Of the network whose checkpoint this is; None where the file does not say: mbbench's own do."""
    if path.suffix != ".safetensors":
        return None
    try:
        return msgspec.json.decode(_header(path)[1].get("spec", ""), type=Architecture)
    except msgspec.MsgspecError:
        return None  # none, or another program's `spec`


def is_whole(path: Path) -> bool:
    """Whether the safetensors file is there and as long as its header says; torch is not needed to tell."""
    try:
        _header(path)
    except UsageError:
        return False
    return True


def _header(path: Path) -> tuple[dict[str, _Tensor], dict[str, str]]:
    """Tensors and metadata of the header: eight bytes of its length, then JSON with each tensor's place in the file."""
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
        raise UsageError(f"{path} is no safetensors file", _REMEDY) from error
    if not header:
        raise UsageError(f"the checkpoint {path} is empty", _REMEDY)
    if size != 8 + length + max(entry.data_offsets[1] for entry in header.values()):
        raise UsageError(f"the checkpoint {path} is truncated or damaged", "fetch or write it again")
    return header, metadata


def _load_torch(path: Path) -> dict[str, Tensor]:
    import pickle

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong with the file is said once, by the error
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"cannot read the checkpoint {path} ({error.strerror or error})", _REMEDY) from error
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"refused {path}: it pickles more than plain tensors, which could run code", _REMEDY
        ) from error
    except Exception as error:  # damaged archives raise whatever the unpickler trips over
        raise UsageError(f"{path} is damaged or no PyTorch checkpoint ({_first_line(error)})", _REMEDY) from error
    for name in _NESTED:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise UsageError(f"{path} holds no state dict", _REMEDY)
    return content


def _first_line(error: Exception) -> str:
    """Its first sentence: torch's others advise to switch the protection off."""
    return (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]
