"""JUnit XML of a gate and of results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from mbbench.compare.record import GateRecord
from mbbench.errors import visible
from mbbench.report.names import backend_label
from mbbench.report.sections import verdicts
from mbbench.result import Result


def render_gate(gate: GateRecord) -> str:
    """Return a suite per cell with a test case per metric; an inconclusive metric is a skipped test case."""
    root = ElementTree.Element("testsuites", name="mbbench check")
    for cell in gate.cells:
        name = verdicts.cell_name(cell.cell)
        outcomes = [verdict.outcome for verdict in cell.verdicts]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=name,
            tests=str(len(outcomes) or 1),
            failures=str(outcomes.count("fail")),
            skipped=str(outcomes.count("inconclusive")),
            errors=str(int(cell.failure is not None)),
            timestamp=gate.time_utc,
        )
        if cell.failure is not None:
            case = ElementTree.SubElement(suite, "testcase", classname=name, name="measurement")
            ElementTree.SubElement(case, "error", message=f"{cell.failure.cause}; {cell.failure.remedy}")
        for verdict in cell.verdicts:
            change = verdict.change
            case = ElementTree.SubElement(suite, "testcase", classname=name, name=change.metric)
            text = f"{verdicts.change_text(change)} (limit {verdict.limit.text})"
            if verdict.outcome == "fail":
                ElementTree.SubElement(case, "failure", message=text, type="regression")
            elif verdict.outcome == "inconclusive":
                reason = "" if change.reason is None else f": {change.reason}"
                ElementTree.SubElement(case, "skipped", message=f"inconclusive: {text}{reason}")
    return _text(root)


def render_results(results: Sequence[Result]) -> str:
    """Return a suite per machine with a test case per cell: figures are properties, and a failed cell is an error.

    A cell that its runtime does not support is skipped.
    """
    root = ElementTree.Element("testsuites", name="mbbench")
    for machine in dict.fromkeys(result.machine for result in results):
        group = [result for result in results if result.machine == machine]
        failures = [result.failure for result in group if result.failure is not None]
        unsupported = sum(failure.is_unsupported for failure in failures)
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=machine.summary,
            tests=str(len(group)),
            failures="0",
            skipped=str(unsupported),
            errors=str(len(failures) - unsupported),
        )
        for result in group:
            case = ElementTree.SubElement(
                suite, "testcase", classname=backend_label(result), name=result.cell.label, timestamp=result.time_utc
            )
            properties = ElementTree.SubElement(case, "properties")
            for name, value in _figures(result):
                ElementTree.SubElement(properties, "property", name=name, value=str(value))
            if (failure := result.failure) is not None:
                kind = "skipped" if failure.is_unsupported else "error"
                ElementTree.SubElement(case, kind, message=f"{failure.cause}; {failure.remedy}")
    return _text(root)


def _figures(result: Result) -> Iterator[tuple[str, float]]:
    """Yield the names and values of the main figures that are known."""
    measured = result.measured
    figures: dict[str, float | None] = {
        "peak_rss_bytes": result.peak_rss_bytes(),
        "size_bytes": None if result.artifact is None else result.artifact.size_bytes,
    }
    if measured.latency is not None:
        figures |= {"latency.median_ms": measured.latency.median_ms, "latency.p99_ms": measured.latency.p99_ms}
    if measured.throughput is not None:
        figures["throughput.images_per_s"] = measured.throughput.images_per_s
    if measured.accuracy is not None:
        figures["accuracy.top1"] = measured.accuracy.top1
    yield from ((name, value) for name, value in figures.items() if value is not None)


def _text(root: ElementTree.Element) -> str:
    for element in root.iter():  # XML has no control characters
        for name, value in element.items():
            element.set(name, visible(value))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
