from typing import Any

import msgspec
import pytest

from mbbench.errors import UsageError, choose_one, describe_invalid, did_you_mean, first_line
from mbbench.stats import Interval


def test_the_first_line_of_a_message_is_kept_or_else_the_type() -> None:
    assert first_line(ValueError("\n  shape mismatch\nat node 3")) == "shape mismatch"
    assert first_line(KeyError()) == "KeyError"


@pytest.mark.parametrize(
    ("cause", "printed"),
    [
        ("no file a\nb", r"no file a\nb"),
        ("red \x1b[31m", r"red \x1b[31m"),
        ("lost \udc80", r"lost \udc80"),
        ("line\u2028break", r"line\u2028break"),
        ("größer ≈ 'x'", "größer ≈ 'x'"),
        ("x" * 2001, f"{'x' * 1000} ... {'x' * 1000}"),
    ],
)
def test_an_error_is_one_line_whatever_it_quotes(cause: str, printed: str) -> None:
    error = UsageError(cause, "fix it")
    assert (error.cause, str(error)) == (printed, f"{printed}; fix it")


def test_a_near_miss_is_suggested_and_a_far_one_is_not() -> None:
    names = ("openvino", "onnxruntime", "Torch")
    assert choose_one("opnvino", names) == "did you mean openvino? choose one of openvino, onnxruntime, Torch"
    assert choose_one("tensorflow", names) == "choose one of openvino, onnxruntime, Torch"
    assert did_you_mean("torch", names) == "did you mean Torch? "
    assert did_you_mean("onnx", names) == ""
    assert did_you_mean("onnx", names, {"onnx": "onnxruntime"}) == "did you mean onnxruntime? "
    assert did_you_mean("x" * 1_000_000, names) == ""


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (dict[str, int], '{"cat": 2.5}', "a value must be a whole number, not a number"),
        (dict[str, int], "3", "the content must be a table, not a whole number"),
        (Interval, '{"low": 1}', "the content has no high"),
        (Interval, '{"low": 1, "high": "x"}', "high must be a number, not text"),
        (tuple[int, int], "[1]", "the content must have 2 values"),
        (dict[str, float | None], '{"a": true}', "a value must be a number, not true or false"),
        (dict[str, int], "{", "Input data was truncated"),
    ],
)
def test_what_a_decoder_refuses_is_said_in_plain_words(kind: Any, text: str, words: str) -> None:
    with pytest.raises(msgspec.MsgspecError) as raised:
        msgspec.json.decode(text, type=kind)
    assert describe_invalid(raised.value) == words
