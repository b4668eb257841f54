from typing import Any

import msgspec
import pytest

from mbbench.errors import describe_invalid, first_line
from mbbench.stats import Interval


def test_the_first_line_of_a_message_is_kept_or_else_the_type() -> None:
    assert first_line(ValueError("\n  shape mismatch\nat node 3")) == "shape mismatch"
    assert first_line(KeyError()) == "KeyError"


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
