"""State dicts as training scripts leave them: nested, averaged, prefixed, in half precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mbbench.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

_AVERAGED = ("state_dict_ema", "model_ema")  # keys of exponential moving averages, which timm prefers too
_KEYS = (*_AVERAGED, "state_dict", "model", "model_state_dict")  # in order of preference
_PREFIXES = ("module.", "_orig_mod.", "model.")  # of DataParallel and AveragedModel, torch.compile, Lightning
_COUNTER = "num_batches_tracked"  # of batch norm, an integer
_MAX_NAMES = 3


@dataclass(frozen=True, slots=True)
class StateDict:
    """The tensors of a checkpoint by name: dense float32 without NaN, and batch norm's counters.

    `notes` say how the file was read, each in a few words. `averaged`: they are a moving average of the weights, and
    the file may hold the last ones too.
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    averaged: bool = False


def unwrap(content: object, path: Path) -> StateDict:
    """Return the state dict in what `torch.load` returned.

    Of several, a moving average counts first, as in timm. Raises `UsageError` if there is none, or as `normalize` does.
    """
    import torch

    keys: list[str] = []
    others: list[str] = []
    while isinstance(content, dict):
        nested = [key for key in _KEYS if isinstance(content.get(key), dict) and content[key]]
        if not nested:
            break
        keys.append(nested[0])
        others += nested[1:]
        content = content[nested[0]]
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise UsageError(f"{path} has no state dict", "save one: torch.save(module.state_dict(), 'FILE.pt')")
    instead = f" instead of {', '.join(others)}" if others else ""
    notes = (f"read from {'.'.join(keys)}{instead}",) if keys else ()
    state = normalize(content, path)
    return replace(state, notes=notes + state.notes, averaged=not set(_AVERAGED).isdisjoint(keys))


def normalize(tensors: dict[str, Tensor], path: Path) -> StateDict:
    """Return the tensors in float32 and under the network's names: the prefixes of wrappers are removed.

    A prefix that most tensors have is a wrapper's; tensors without it (counters, losses, metrics) are left out.
    Raises `UsageError` that names the first tensor that is not a dense float, or has NaN or infinite values.
    """
    tensors, notes = _without_prefixes(tensors)
    converted: dict[str, str] = {}
    state = {name: _float32(name, tensor, path, converted) for name, tensor in tensors.items()}
    notes += [f"{dtype} {change} to float32" for dtype, change in converted.items()]
    return StateDict(state, tuple(notes))


def _without_prefixes(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors without the prefixes, and notes on what was removed and left out."""
    removed = ""
    left_out: list[str] = []
    while prefix := _common_prefix(tensors):
        removed += prefix
        left_out += [name for name in tensors if not name.startswith(prefix)]
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    notes = [f"prefix {removed} removed"] if removed else []
    if left_out:
        more = f" and {len(left_out) - _MAX_NAMES} more" if len(left_out) > _MAX_NAMES else ""
        notes.append(f"{', '.join(left_out[:_MAX_NAMES])}{more} left out")
    return tensors, notes


def _common_prefix(tensors: dict[str, Tensor]) -> str | None:
    """Return the prefix of a wrapper that more than half of the tensors have, or None."""
    counts = {prefix: sum(name.startswith(prefix) for name in tensors) for prefix in _PREFIXES}
    return next((prefix for prefix, count in counts.items() if 2 * count > len(tensors)), None)


def _float32(name: str, tensor: Tensor, path: Path, converted: dict[str, str]) -> Tensor:
    """Return the tensor in float32, and note in `converted` what was done to its dtype. Raises `UsageError`."""
    import torch

    changes = {torch.float16: "widened", torch.bfloat16: "widened", torch.float64: "rounded"}
    dtype = str(tensor.dtype).removeprefix("torch.")
    is_count = name.endswith(_COUNTER) and tensor.dtype in (torch.int64, torch.int32)
    if tensor.dtype != torch.float32 and tensor.dtype not in changes and not is_count:
        raise dtype_error(name, path, dtype)
    if tensor.layout != torch.strided or tensor.is_meta:
        raise UsageError(f"{name} in {path} is a sparse tensor or has no data", "give a checkpoint of dense tensors")
    stored = tensor.untyped_storage().nbytes() // tensor.element_size()
    if tensor.numel() > stored:  # a stride of 0: one value may claim to be any number of them
        raise UsageError(
            f"{name} in {path} claims {tensor.numel()} values, but stores {stored}",
            "give a checkpoint of contiguous tensors",
        )
    if is_count:
        return tensor
    if tensor.dtype in changes:
        converted[dtype] = changes[tensor.dtype]
    value = tensor.detach().to(torch.float32)
    if (bad := value.numel() - int(torch.isfinite(value).sum())) > 0:
        raise UsageError(
            f"{name} in {path} has NaN or infinite values: {bad} of {value.numel()}",
            "give a checkpoint of before the training diverged",
        )
    return value


def dtype_error(name: str, path: Path, dtype: str) -> UsageError:
    """Return the error for a tensor whose values are not floats that PyTorch trains with."""
    return UsageError(
        f"{name} in {path} has the dtype {dtype}", "give a checkpoint of float32, float16, bfloat16 or float64"
    )
