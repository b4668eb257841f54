from mbbench.errors import first_line


def test_the_first_line_of_a_message_is_kept_or_else_the_type() -> None:
    assert first_line(ValueError("\n  shape mismatch\nat node 3")) == "shape mismatch"
    assert first_line(KeyError()) == "KeyError"
