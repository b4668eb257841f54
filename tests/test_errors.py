from mbbench.errors import UsageError, first_line


def test_the_first_line_of_a_message_is_kept_or_else_the_type() -> None:
    assert first_line(ValueError("\n  shape mismatch\nat node 3")) == "shape mismatch"
    assert first_line(KeyError()) == "KeyError"


def test_a_message_is_one_line_without_control_characters() -> None:
    error = UsageError("\x1b[2Jx\n\u202ey is wrong", "rename ü\r\ud800")
    assert str(error) == "\\x1b[2Jx\\n\\u202ey is wrong; rename ü\\r\\ud800"
