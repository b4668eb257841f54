import pytest

from mbbench.errors import UsageError, choose_one, did_you_mean, first_line


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
        ("x" * 601, f"{'x' * 300} ... {'x' * 300}"),
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
