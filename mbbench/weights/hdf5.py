"""Reading of Keras's legacy HDF5 files, of weights or of whole models. No link is followed out of the file's tree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbbench.errors import UsageError, first_line
from mbbench.weights import states
from mbbench.weights.states import StateDict

if TYPE_CHECKING:
    from torch import Tensor

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_REMEDY = "give the .h5 file that Keras publishes"
_UNNAMED = {"layers", "vars"}  # the groups in a .weights.h5 file of Keras 3
SAVE_MODEL = "save the whole model with Keras, as model.save('FILE.h5'), and give --weights keras:FILE.h5"
_MAX_EXPANSION = 1100  # of gzip, which HDF5 may apply
_MODEL = "model_weights"  # the group of the weights in the file of a whole model


def read(path: Path) -> StateDict:
    """Return every array in the file under the name `LAYER/VARIABLE`, such as `conv1/kernel`.

    Raises `UsageError` if the file is damaged, has links, keeps its data in other files, or holds an array that is not
    a weight.
    """
    import h5py
    import numpy as np
    import torch

    tensors: dict[str, Tensor] = {}
    with _open(path) as root:
        if _UNNAMED.issubset(root):
            raise UsageError(f"{path} has no names of layers, as Keras 3 saves weights", SAVE_MODEL)
        _refuse_links(root, path)
        arrays: dict[str, Any] = {}
        root.visititems(lambda name, item: arrays.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        for name, array in arrays.items():
            if array.external or array.is_virtual:
                raise UsageError(f"{name} in {path} keeps its data in another file, which is not read", _REMEDY)
            layer, _, variable = name.partition("/")
            target = f"{layer}/{variable.rpartition('/')[2].removesuffix(':0')}"
            if array.nbytes > _MAX_EXPANSION * array.id.get_storage_size():
                raise UsageError(
                    f"{name} in {path} claims {array.nbytes} bytes, but stores {array.id.get_storage_size()}", _REMEDY
                )
            try:
                value = np.asarray(array[()])
                tensors[target] = torch.from_numpy(value.astype(value.dtype.newbyteorder("="), order="C"))
            except (TypeError, ValueError) as error:
                raise states.dtype_error(name, path, str(array.dtype)) from error
    if not tensors:
        raise UsageError(f"{path} is an HDF5 file without arrays", _REMEDY)
    return states.normalize(tensors, path)


def holds_mobilenet(path: Path) -> bool:
    """Return whether the file has the layers of Keras's MobileNetV1. Raises `UsageError` if it is damaged or linked."""
    with _open(path) as root:
        if {"conv1", "conv_dw_1", "conv_pw_13"}.issubset(root):
            return True
        _refuse_links(root, path)
        return False


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Yield the group that has a group for each layer. Raises `UsageError`."""
    import h5py

    try:
        with h5py.File(path) as file:
            link = file.get(_MODEL, getlink=True)
            yield file[_MODEL] if isinstance(link, h5py.HardLink) else file
    except (OSError, RuntimeError, KeyError, SystemError) as error:  # SystemError: h5py's lock around a failed call
        cause = f"cannot read {path} as HDF5 ({first_line(error)})"
        raise UsageError(cause, _REMEDY) from error


def _refuse_links(root: Any, path: Path) -> None:
    import h5py

    def describe(name: str, link: object) -> str | None:
        if isinstance(link, h5py.ExternalLink):
            kind, target = "an external link", f"{link.path} in {link.filename}"
        elif isinstance(link, h5py.SoftLink):
            kind, target = "a soft link", link.path
        else:
            return None
        return f"{name} in {path} is {kind} to {target}; links are not followed"

    if (cause := root.visititems_links(describe)) is not None:
        raise UsageError(cause, "give a file that holds the arrays themselves")
