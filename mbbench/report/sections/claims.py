"""The paper's claims about 1.0 MobileNet-224, each beside what is counted or measured here, and whether it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mbbench.models import paper
from mbbench.models.cost import cost_of
from mbbench.report import units
from mbbench.report.document import Table
from mbbench.result import Accuracy, Result
from mbbench.spec import ModelSpec

Verdict = Literal["holds", "does not hold", "cannot be judged"]
_NEARLY = 0.01  # the paper's own networks are 0.9 points apart
_MOBILENET = ModelSpec()


@dataclass(frozen=True, slots=True)
class Claim:
    text: str
    printed: str
    here: str
    verdict: Verdict


def claims(results: Sequence[Result]) -> list[Claim]:
    """Section 4.2 of the paper. Sizes and Mult-Adds are counted at 1000 classes; accuracy needs labelled images."""
    own = cost_of(_MOBILENET)
    found = []
    for spec, name in ((paper.VGG16, "VGG16"), (paper.GOOGLENET, "GoogLeNet")):
        other = cost_of(spec)
        smaller, cheaper = paper.CLAIMS[spec.family]
        found.append(_ratio(f"so many times smaller than {name}", smaller, other.parameters, own.parameters))
        found.append(_ratio(f"so many times less compute than {name}", cheaper, other.mult_adds, own.mult_adds))
    return [*found, _accuracy(results)]


def table(found: Sequence[Claim]) -> Table:
    return Table(
        "The paper's claims for 1.0 MobileNet-224",
        ("Claim", "Paper", "Here", "Verdict"),
        tuple((claim.text, claim.printed, claim.here, claim.verdict) for claim in found),
        numeric=False,
        notes=(
            "Parameters and Mult-Adds are counted, at 1000 classes, of the networks that mbbench builds (GoogLeNet is"
            " torchvision's).",
        ),
    )


def _ratio(text: str, printed: str, other: int, own: int) -> Claim:
    """`32x` is claimed when the ratio is at least 32; `>2.5x` when it is more than 2.5."""
    claimed = float(printed.strip(">x"))
    ratio = other / own
    holds = ratio > claimed if printed.startswith(">") else ratio >= claimed
    return Claim(text, printed, f"{units.significant(ratio)}x", "holds" if holds else "does not hold")


def _accuracy(results: Sequence[Result]) -> Claim:
    text = "nearly as accurate as VGG16 (top-1)"
    own_row, vgg_row = paper.row_of(_MOBILENET), paper.row_of(paper.VGG16)
    assert own_row is not None and vgg_row is not None
    printed = f"{own_row.top1_percent:.1f} % and {vgg_row.top1_percent:.1f} %"
    pair = _measured_pair(results)
    if pair is None:
        return Claim(text, printed, "needs both networks' weights and ImageNet's labels", "cannot be judged")
    own, vgg, data = pair
    assert own.top1 is not None and vgg.top1 is not None
    here = f"{units.percent(own.top1, own.top1_ci95)} and {units.percent(vgg.top1, vgg.top1_ci95)} on {data}"
    return Claim(text, printed, here, "holds" if vgg.top1 - own.top1 <= _NEARLY else "does not hold")


def _measured_pair(results: Sequence[Result]) -> tuple[Accuracy, Accuracy, str] | None:
    """The top-1 of both networks in fp32 at 224 on the same images of 1000 classes."""
    known = {
        (result.cell.model.family, result.data.fingerprint): (accuracy, result.data)
        for result in results
        if (accuracy := result.measured.accuracy) is not None and accuracy.top1 is not None
        and result.data is not None and result.data.classes == 1000 and result.cell.precision == "fp32"
        and (result.cell.model.alpha, result.cell.model.resolution) == (1.0, 224)
    }  # fmt: skip
    for (family, fingerprint), (accuracy, data) in known.items():
        other = known.get(("vgg16", fingerprint))
        if family == "mobilenet_v1" and other is not None:
            return accuracy, other[0], data.name
    return None
