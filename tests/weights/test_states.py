"""State dicts as training scripts leave them."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mbbench.errors import UsageError
from mbbench.weights import states

PATH = Path("x.pt")
FIRST = {"stem.weight": torch.ones(2), "fc.weight": torch.zeros(2)}
SECOND = {name: tensor + 1 for name, tensor in FIRST.items()}
THIRD = {name: tensor + 2 for name, tensor in FIRST.items()}


def equal(state: states.StateDict, expected: dict[str, torch.Tensor]) -> bool:
    return list(state.tensors) == list(expected) and all(
        torch.equal(state.tensors[name], tensor) for name, tensor in expected.items()
    )


@pytest.mark.parametrize(
    ("content", "expected", "note"),
    [
        ({"state_dict": FIRST, "epoch": 3}, FIRST, "read from state_dict"),
        ({"model": OrderedDict(FIRST)}, FIRST, "read from model"),
        ({"model_state_dict": FIRST, "optimizer": {"state_dict": SECOND}}, FIRST, "read from model_state_dict"),
        ({"model": {"state_dict": FIRST}}, FIRST, "read from model.state_dict"),
        ({"model": FIRST, "state_dict": SECOND}, SECOND, "read from state_dict instead of model"),
        ({"state_dict": FIRST, "state_dict_ema": SECOND}, SECOND, "read from state_dict_ema instead of state_dict"),
        ({"model": FIRST, "model_ema": SECOND}, SECOND, "read from model_ema instead of model"),
        (
            {"model": FIRST, "model_ema": SECOND, "state_dict_ema": THIRD},
            THIRD,
            "read from state_dict_ema instead of model_ema, model",
        ),
        ({"state_dict": FIRST, "state_dict_ema": None}, FIRST, "read from state_dict"),
        ({"state_dict": FIRST, "model_ema": {}}, FIRST, "read from state_dict"),
    ],
)
def test_the_key_that_was_read_is_noted(content: object, expected: dict[str, torch.Tensor], note: str) -> None:
    state = states.unwrap(content, PATH)
    assert equal(state, expected)
    assert state.notes == (note,)
    assert state.averaged == ("_ema" in note)


def test_a_bare_state_dict_has_no_notes() -> None:
    state = states.unwrap(FIRST, PATH)
    assert equal(state, FIRST)
    assert (state.notes, state.averaged) == ((), False)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "model.module.model."])
def test_prefixes_of_wrappers_are_removed(prefix: str) -> None:
    state = states.unwrap({f"{prefix}{name}": tensor for name, tensor in FIRST.items()}, PATH)
    assert equal(state, FIRST)
    assert state.notes == (f"prefix {prefix} removed",)


def test_a_prefix_of_few_tensors_is_part_of_their_names() -> None:
    content = {"model.weight": torch.ones(2), "fc.weight": torch.ones(2)}
    assert equal(states.unwrap(content, PATH), content)


def test_tensors_without_the_prefix_are_left_out_and_named() -> None:
    content = {f"model.{name}": tensor for name, tensor in {**FIRST, "bn.bias": torch.ones(1)}.items()}
    extra = {"loss.weight": torch.ones(3, dtype=torch.int64), "metric.count": torch.tensor(float("nan"))}
    state = states.unwrap({"state_dict": {**content, **extra}}, PATH)
    assert list(state.tensors) == ["stem.weight", "fc.weight", "bn.bias"]
    assert state.notes == (
        "read from state_dict", "prefix model. removed", "loss.weight, metric.count left out",
    )  # fmt: skip
    names = [*(f"model.{index}" for index in range(6)), *(f"loss.{index}" for index in range(5))]
    many = {name: torch.ones(1) for name in names}
    assert states.unwrap(many, PATH).notes[1] == "loss.0, loss.1, loss.2 and 2 more left out"


def test_the_average_of_torch_is_read() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    state = states.unwrap({"model_ema": AveragedModel(network).state_dict()}, PATH)
    assert equal(state, network.state_dict())
    assert state.notes == ("read from model_ema", "prefix module. removed", "n_averaged left out")


@pytest.mark.parametrize(
    ("dtype", "note"),
    [
        (torch.float16, "float16 widened to float32"),
        (torch.bfloat16, "bfloat16 widened to float32"),
        (torch.float64, "float64 rounded to float32"),
    ],
)
def test_other_floats_become_float32(dtype: torch.dtype, note: str) -> None:
    content = {"w": torch.tensor([0.1, -3.0]).to(dtype), "b": torch.ones(2), "bn.num_batches_tracked": torch.tensor(7)}
    state = states.unwrap(content, PATH)
    assert state.notes == (note,)
    assert [tensor.dtype for tensor in state.tensors.values()] == [torch.float32, torch.float32, torch.int64]
    assert torch.equal(state.tensors["w"], content["w"].float())


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_a_tensor_that_is_not_a_float_is_refused_by_name_and_dtype(dtype: torch.dtype) -> None:
    with pytest.raises(UsageError) as caught:
        states.unwrap({"a": torch.ones(2), "fc.weight": torch.ones(2).to(dtype)}, PATH)
    assert str(caught.value) == (
        f"fc.weight in x.pt has the dtype {str(dtype).removeprefix('torch.')};"
        " give a checkpoint of float32, float16, bfloat16 or float64"
    )


@pytest.mark.parametrize("tensor", [torch.ones(2, 2).to_sparse(), torch.empty(2, device="meta")])
def test_a_tensor_without_dense_data_is_refused(tensor: torch.Tensor) -> None:
    with pytest.raises(UsageError, match=r"^fc\.weight in x\.pt is a sparse tensor or has no data"):
        states.unwrap({"fc.weight": tensor}, PATH)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_values_that_are_not_finite_are_refused_by_the_tensors_name(value: float, dtype: torch.dtype) -> None:
    with pytest.raises(UsageError) as caught:
        states.unwrap({"a": torch.ones(2), "fc.weight": torch.tensor([1, value, value], dtype=dtype)}, PATH)
    assert str(caught.value) == (
        "fc.weight in x.pt has NaN or infinite values: 2 of 3; give a checkpoint of before the training diverged"
    )


def test_more_values_than_are_stored_are_refused() -> None:
    for dtype in (torch.float32, torch.float64):
        claimed = torch.zeros(1, dtype=dtype).expand(2**50)
        with pytest.raises(UsageError, match=rf"^w in x.pt claims {2**50} values, but stores 1;"):
            states.normalize({"w": claimed}, Path("x.pt"))


@pytest.mark.parametrize(
    ("counter", "what"),
    [
        (torch.tensor(float("nan")), "has NaN or infinite values"),
        (torch.tensor(1j), "has the dtype complex64"),
        (torch.tensor(3).to_sparse(), "is a sparse tensor or has no data"),
    ],
)
def test_a_counter_that_is_no_number_is_refused(counter: torch.Tensor, what: str) -> None:
    with pytest.raises(UsageError, match=rf"^bn.num_batches_tracked in x.pt {what}"):
        states.normalize({"bn.num_batches_tracked": counter}, Path("x.pt"))
