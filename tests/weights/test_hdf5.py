"""Reading of HDF5 files that others wrote."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mbbench.errors import UsageError
from mbbench.weights import hdf5


@pytest.mark.parametrize("root", ["", "model_weights/"])
def test_arrays_are_named_by_layer_and_variable(tmp_path: Path, root: str) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file[f"{root}conv1/nested/conv1/kernel:0"] = np.arange(3, dtype=">f4")
        file[f"{root}conv1_bn/gamma"] = np.ones(2, np.float16)
        if root:
            file["optimizer_weights/step"] = 3
    state = hdf5.read(path)
    assert list(state.tensors) == ["conv1/kernel", "conv1_bn/gamma"]
    assert torch.equal(state.tensors["conv1/kernel"], torch.tensor([0.0, 1.0, 2.0]))
    assert state.notes == ("float16 widened to float32",)


@pytest.mark.parametrize(
    ("link", "what"),
    [
        (h5py.SoftLink("/conv1/kernel"), "a soft link to /conv1/kernel"),
        (h5py.ExternalLink("other.h5", "/secret"), "an external link to /secret in other.h5"),
    ],
)
@pytest.mark.parametrize("name", ["alias", "conv1/alias"])
def test_a_link_is_named_and_not_followed(
    tmp_path: Path, link: h5py.SoftLink | h5py.ExternalLink, what: str, name: str
) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.ones(3)
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["conv1/kernel"] = np.ones(3)
        file[name] = link
    with pytest.raises(UsageError) as caught:
        hdf5.read(path)
    assert str(caught.value) == (
        f"{name} in {path} is {what}; links are not followed; give a file that holds the arrays themselves"
    )


def test_data_in_other_files_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(24))
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("conv1/kernel", (3,), "f8", external=str(tmp_path / "secret"))
    with pytest.raises(UsageError, match=r"^conv1/kernel in .*x\.h5 keeps its data in another file, which is not read"):
        hdf5.read(path)
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "secret", (3,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("conv1/kernel", layout)
    with pytest.raises(UsageError, match=r"^conv1/kernel in .*x\.h5 keeps its data in another file, which is not read"):
        hdf5.read(path)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (np.ones(2, np.int32), "conv1/kernel in {path} has the dtype int32"),
        (np.array([1.0, np.nan]), "conv1/kernel in {path} has NaN or infinite values: 1 of 2"),
        ("text", "conv1/kernel in {path} has the dtype object"),
    ],
)
def test_a_value_that_is_not_a_weight_is_refused(tmp_path: Path, value: object, what: str) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["conv1/kernel"] = value
    with pytest.raises(UsageError) as caught:
        hdf5.read(path)
    assert caught.value.cause == what.format(path=path)


def test_a_file_without_arrays_and_a_truncated_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_group("conv1")
    with pytest.raises(UsageError, match=r"x\.h5 is an HDF5 file without arrays"):
        hdf5.read(path)
    with h5py.File(path, "w") as file:
        file["conv1/kernel"] = np.ones(5000)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UsageError, match=r"cannot read .*x\.h5 as HDF5 \(.*truncated"):
        hdf5.read(path)


def test_a_link_is_named_even_if_no_layer_is_known(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["stem"] = h5py.ExternalLink("other.h5", "/stem")
    with pytest.raises(UsageError, match=r"^stem in .*x\.h5 is an external link to /stem in other\.h5; links are not"):
        hdf5.holds_mobilenet(path)


def test_an_array_that_claims_more_than_it_stores_is_not_allocated(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("conv1/kernel", (2**40,), "f4", chunks=(1024,))
    with pytest.raises(UsageError, match=rf"^conv1/kernel in .*x\.h5 claims {2**42} bytes, but stores 0;"):
        hdf5.read(path)
