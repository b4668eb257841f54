"""Whatever a result file holds, a command that reads it ends with an exit code and at most one line of error."""

import copy
import csv
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from mbbench.errors import UNSAFE_TEXT
from mbbench.report.formats import html
from mbbench.report.formats.records import fold, unfold
from mbbench.result import ExecutedInfo, Failure, PrecisionShare, Result, ScenarioResult
from mbbench.stats import Interval

Invoke = Callable[..., tuple[int, str, str]]
Make = Callable[..., Result]

HOSTILE = (
    "\x1b[31mred\x1b[0m", "=HYPERLINK(1)", "\u202egnp.exe", "</script><script>alert(1)</script>", "a|b`c*d_e",
    "[text](http://x.y)", "\x9b2J", "two\nlines\r\ttab", "\x00", "\u2028",
    "[/bold]", "", "é" * 3000, "-1+2", "&#x202e;",
)  # fmt: skip
NUMBERS = (-1, 0, 1, 2, -0.5, 1e-300, 1e300, 10**30, -(10**30), 0.1, 1e9, 700)
OTHERS: tuple[object, ...] = (None, True, [], {}, "", 7, [None], {"a": 1}, "NaN")
COMMANDS = (
    ("show", "r.jsonl"),
    ("choose", "r.jsonl", "--max-p99", "5ms"),
    ("choose", "r.jsonl", "--max-p99", "5ms", "--format", "json"),
    ("choose", "r.jsonl", "--min-top1", "0.5", "--format", "csv"),
    ("choose", "r.jsonl", "--max-size", "9MB", "--format", "markdown"),
    ("explain", "r.jsonl"),
    ("explain", "r.jsonl", "--format", "csv"),
    ("explain", "r.jsonl", "--format", "json"),
    ("compare", "good.jsonl", "r.jsonl", "--anyway"),
    ("compare", "r.jsonl", "good.jsonl", "--format", "markdown"),
    ("report", "r.jsonl", "-o", "r.html", "-o", "r.md", "-o", "r.csv", "-o", "r.json", "-o", "r.xml"),
    ("verify", "r.html"),
)  # fmt: skip
DOCUMENTED = {0, 2, 3, 5, 8}


@pytest.fixture
def records(make_result: Make) -> list[Any]:
    """Records in fp32 and INT8 with most of what a record can have, as plain data."""
    result = make_result()
    latency = result.measured.latency
    assert latency is not None
    served = ScenarioResult(
        scenario="single-stream", batch=1, queries=700, seconds=1.0, images_per_s=700.0, samples_ms=latency.samples_ms
    )
    executed = ExecutedInfo(
        shares=(PrecisionShare(precision="int8", mult_adds_share=1.0, layers=28),), fp32_layers=("conv1",), moves=2
    )
    measured = replace(result.measured, served=(served,), latency=replace(latency, median_ci95_ms=Interval(0.5, 0.51)))
    int8 = replace(result.cell, precision="int8")
    return [
        msgspec.to_builtins(replace(result, measured=measured)),
        msgspec.to_builtins(replace(result, id="f" * 16, cell=int8, executed=executed, measured=measured)),
    ]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every (container, key) inside `value`, of a list only the first entries."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:4]) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from places(inner)


def mutate(record: Any, chance: random.Random) -> bytes:
    """Return a line made from `record` by one to three changes."""
    record = copy.deepcopy(record)
    for _ in range(chance.randint(1, 3)):
        container, key = chance.choice(list(places(record)))
        value = container[key]
        match chance.randrange(8):
            case 0 if isinstance(container, dict):
                del container[key]
            case 1:
                container[key] = chance.choice(OTHERS)
            case 2 if isinstance(value, list | dict):
                value.clear()
            case 3 if isinstance(value, dict):
                value[chance.choice(HOSTILE)] = chance.choice(HOSTILE)
            case 4:
                for _ in range(200):
                    container[key] = [container[key]]
            case _:
                container[key] = chance.choice(HOSTILE if isinstance(value, str) else NUMBERS)
    line = bytearray(json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode(errors="replace"))
    match chance.randrange(8):
        case 0:
            del line[chance.randrange(len(line)) :]
        case 1:
            line[chance.randrange(len(line))] = chance.randrange(256)
        case 2:
            line[:] = line.replace(b"0.5", chance.choice((b"NaN", b"Infinity", b"1e999", b"-0.5")), 3)
    return bytes(line)


def check(invoke: Invoke, command: tuple[str, ...]) -> None:
    code, out, err = invoke(*command)
    assert code in DOCUMENTED, (command, code, err)
    assert "Traceback" not in err
    for line in (out + err).split("\n"):
        assert not UNSAFE_TEXT.search(line), (command, line)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == (code != 0), (command, err)


def check_files() -> None:
    for path in Path().glob("r.*"):
        if path.suffix not in (".jsonl", ".html"):
            assert not any(UNSAFE_TEXT.search(line) for line in path.read_text().split("\n")), path
    if (xml := Path("r.xml")).exists():
        ElementTree.fromstring(xml.read_bytes())
        json.loads(Path("r.json").read_text())
        for row in csv.reader(StringIO(Path("r.csv").read_text())):
            assert not any(re.match(r"[=@\t\r]|[+-](?!\d)", cell) for cell in row)
        page = Path("r.html").read_text()
        assert page.count("<script") == 5
        assert html.read_records(page, "r.html")


def run_all(invoke: Invoke, records: list[Any], seeds: range) -> None:
    good = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    Path("good.jsonl").write_bytes(good)
    for seed in seeds:
        chance = random.Random(seed)
        lines = [mutate(record, chance) for record in records]
        Path("r.jsonl").write_bytes((good if seed % 3 == 0 else b"") + b"\n".join(lines))
        for path in Path().glob("r.[!j]*"):
            path.unlink()
        for command in COMMANDS:
            if command[0] != "verify" or Path("r.html").exists():
                check(invoke, command)
        check_files()


def test_damaged_records_end_in_one_line(invoke: Invoke, records: list[Any]) -> None:
    run_all(invoke, records, range(8))


def test_fit_goes_on_past_damaged_records(invoke: Invoke, records: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    failure = Failure(cause="not measured here", remedy="-", exit_code=7)
    monkeypatch.setattr("mbbench.cli.fit._measuring", lambda *_: lambda _: failure)
    good = json.dumps(records[0]).encode()
    command = ("fit", "--max-p99", "5ms", "--backend", "onnxruntime", "--results", "r.jsonl")
    for seed in range(4):
        Path("r.jsonl").write_bytes(good + b"\n" + mutate(records[1], random.Random(seed)) + b"\n{}\n")
        code, out, err = invoke(*command)
        assert code == 7 and "not measured here" in err and "r.jsonl line 3 is left out" in err
        assert not any(UNSAFE_TEXT.search(line) for line in (out + err).split("\n"))
    Path("r.jsonl").write_bytes(b"{}\n")
    code, _, err = invoke(*command)
    assert code == 2 and err.splitlines()[-1].startswith("error: r.jsonl holds no result: line 1: ")


def write_damaged_page(page: str, chance: random.Random) -> None:
    """Write `page` with one of its embedded records changed, or with damaged bytes."""
    embedded = {name: html.read_embedded(page, name) for name in ("records", "samples")}
    rows = unfold(json.loads(embedded["records"]))
    rows[0] = json.loads(mutate(rows[0], chance).decode(errors="replace").replace("NaN", "null"), strict=False)
    changed: dict[str, bytes] = {"records": json.dumps(fold(rows)).encode(), "samples": embedded["samples"]}
    if chance.randrange(4) == 0:
        name = chance.choice(("records", "samples"))
        damaged = bytearray(changed[name])
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        changed[name] = bytes(damaged[: chance.choice((None, -1, -8, len(damaged) // 2))])
    for name, content in changed.items():
        before, after = re.split(rf'(?<=id="{name}">)[^<]*', page)
        page = before + html._compress(content) + after
    Path("r.html").write_text(page)


def verify_damaged_pages(invoke: Invoke, records: list[Any], seeds: range) -> None:
    page = html.render([msgspec.convert(record, Result) for record in records])
    for seed in seeds:
        try:
            write_damaged_page(page, random.Random(seed))
        except (json.JSONDecodeError, AttributeError):  # it is no JSON any more
            continue
        check(invoke, ("verify", "r.html"))


def test_damaged_pages_end_in_one_line(invoke: Invoke, records: list[Any]) -> None:
    verify_damaged_pages(invoke, records, range(8))


@pytest.mark.slow
def test_a_hundred_damaged_pages_end_in_one_line(invoke: Invoke, records: list[Any]) -> None:
    verify_damaged_pages(invoke, records, range(100))


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 1000, 50))
def test_a_thousand_damaged_records_end_in_one_line(invoke: Invoke, records: list[Any], start: int) -> None:
    run_all(invoke, records, range(start, start + 50))
