"""Reading and writing of checkpoints. Only plain tensors are unpickled, never anything that could run code."""

from __future__ import annotations

import argparse
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbbench import cache
from mbbench.errors import UsageError, first_line
from mbbench.families import FAMILIES, Family, Variant
from mbbench.spec import Padding
from mbbench.weights import content, states
from mbbench.weights.content import REMEDY as _REMEDY
from mbbench.weights.states import StateDict

if TYPE_CHECKING:
    from torch import Tensor

_HEADER_LIMIT = 100_000_000  # bytes, as in safetensors


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


def read(path: Path) -> StateDict:
    """Return the state dict in a checkpoint of any training script, as `states.StateDict` describes it.

    Raises `UsageError` if the file is missing, is damaged, or holds anything except plain tensors of finite floats.
    """
    if content.checkpoint_format(path) == "safetensors":
        return states.normalize(read_state(path), path)
    return states.unwrap(_unpickle(path), path)


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, as they are. Raises `UsageError` if it is missing or damaged."""
    _header(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UsageError(f"cannot read the checkpoint {path} ({_first_sentence(error)})", _REMEDY) from error
    return state


def count_classes(state: dict[str, Tensor], family: Family) -> int | None:
    """Return the number of rows of the weight of the family's classifier; None if the state dict does not have it."""
    weight = state.get(FAMILIES[family].classifier)
    return None if weight is None or weight.ndim not in (2, 4) else len(weight) or None


def read_architecture(path: Path) -> Architecture | None:
    """Return the architecture that the checkpoint records, or None.

    Only checkpoints that mbbench writes record it. Raises `UsageError` if the file is missing or damaged.
    """
    if content.checkpoint_format(path) != "safetensors":
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


def _unpickle(path: Path) -> object:
    """Return what `torch.save` wrote: plain data, tensors, and the options of a training script (a Namespace)."""
    import pickle

    import torch
    from torch.serialization import safe_globals

    try:
        with warnings.catch_warnings(), safe_globals([argparse.Namespace]), path.open("rb") as file:
            warnings.simplefilter("ignore")  # the error below is enough
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"cannot read the checkpoint {path} ({error.strerror or error})", _REMEDY) from error
    except pickle.UnpicklingError as error:
        raise _pickle_error(path, error) from error
    except Exception as error:  # a damaged file can raise any exception in the unpickler
        raise UsageError(
            f"{path} is damaged or not a PyTorch checkpoint ({_first_sentence(error)})", _REMEDY
        ) from error


def _pickle_error(path: Path, error: Exception) -> UsageError:
    """Return the error for a file with other objects than tensors; it names their classes."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        names = sorted(get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # a file of before PyTorch 1.6, or a damaged one: only torch's message has a name
        names = re.findall(r"GLOBAL ([\w.]+)", str(error))
    names = [name for name in names if name != "argparse.Namespace"]
    if not names:
        return UsageError(f"{path} is damaged or not a PyTorch checkpoint", _REMEDY)
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    if any(name.startswith("torch.nn.modules.") for name in names):
        return UsageError(f"{path} pickles a whole module ({listed}), which could run code", content.SAVE_TENSORS)
    return UsageError(
        f"{path} pickles objects other than tensors ({listed}), which could run code", content.SAVE_TENSORS
    )


def _first_sentence(error: Exception) -> str:
    """Return the first sentence of the message. In torch's messages, the next ones advise disabling `weights_only`."""
    return first_line(error).split(". ")[0]
