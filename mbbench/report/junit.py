"""A gate as JUnit XML: a suite a cell, a test case a metric. What is inconclusive counts as skipped."""

from __future__ import annotations

from xml.etree import ElementTree

from mbbench.checking import Checked
from mbbench.report import verdicts


def render(checked: Checked) -> str:
    root = ElementTree.Element("testsuites", name="mbbench check")
    for cell in checked.cells:
        name = verdicts.name(cell.cell)
        outcomes = [verdict.outcome for verdict in cell.verdicts]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=name,
            tests=str(len(outcomes) or 1),
            failures=str(outcomes.count("fail")),
            skipped=str(outcomes.count("inconclusive")),
            errors=str(int(cell.failure is not None)),
            timestamp=checked.time_utc,
        )
        if cell.failure is not None:
            case = ElementTree.SubElement(suite, "testcase", classname=name, name="measuring")
            ElementTree.SubElement(case, "error", message=f"{cell.failure.cause}; {cell.failure.remedy}")
        for verdict in cell.verdicts:
            change = verdict.change
            case = ElementTree.SubElement(suite, "testcase", classname=name, name=change.metric)
            text = f"{verdicts.amount(change)} (limit {verdict.limit.text})"
            if verdict.outcome == "fail":
                ElementTree.SubElement(case, "failure", message=text, type="regression")
            elif verdict.outcome == "inconclusive":
                reason = "" if change.reason is None else f": {change.reason}"
                ElementTree.SubElement(case, "skipped", message=f"inconclusive: {text}{reason}")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
