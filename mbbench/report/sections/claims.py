"""The paper's claims about 1.0 MobileNet-224, checked against what mbbench counts and measures."""

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

ClaimVerdict = Literal["holds", "does not hold", "cannot be checked"]
_MAX_TOP1_GAP = 0.01  # that counts as "nearly as accurate"; the paper's own networks are 0.9 points apart
_MOBILENET = ModelSpec()


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim, the figure that the paper prints, the figure here, and the verdict."""

    text: str
    printed: str
    here: str
    verdict: ClaimVerdict


def concern(results: Sequence[Result]) -> bool:
    """Return whether the claims concern `results`: they have a network that the claims are about."""
    subjects = (paper.row_of(_MOBILENET), paper.row_of(paper.VGG16), paper.row_of(paper.GOOGLENET))
    return any(paper.row_of(result.cell.model) in subjects for result in results)


def judge(results: Sequence[Result]) -> list[Claim]:
    """Return the claims of the paper's section 4.2 with verdicts.

    Parameters and Mult-Adds are counted at 1000 classes; accuracy needs labeled images.
    """
    mobilenet = cost_of(_MOBILENET)
    claims = []
    for spec, name in ((paper.VGG16, "VGG16"), (paper.GOOGLENET, "GoogLeNet")):
        cost = cost_of(spec)
        smaller, cheaper = paper.CLAIMS[spec.family]
        claims.append(_ratio(f"times fewer parameters than {name}", smaller, cost.parameters, mobilenet.parameters))
        claims.append(_ratio(f"times fewer Mult-Adds than {name}", cheaper, cost.mult_adds, mobilenet.mult_adds))
    return [*claims, _accuracy(results)]


def table(claims: Sequence[Claim]) -> Table:
    """Return a row for each claim."""
    return Table(
        "The paper's claims for 1.0 MobileNet-224",
        ("Claim", "Paper", "Here", "Verdict"),
        tuple((claim.text, claim.printed, claim.here, claim.verdict) for claim in claims),
        numeric=False,
        notes=(
            "Parameters and Mult-Adds are counted at 1000 classes, in the networks that mbbench builds (GoogLeNet is"
            " torchvision's).",
        ),
    )


def _ratio(text: str, printed: str, count: int, mobilenet_count: int) -> Claim:
    """Judge a ratio: `32x` claims at least 32, `>2.5x` claims more than 2.5."""
    claimed = float(printed.strip(">x"))
    ratio = count / mobilenet_count
    holds = ratio > claimed if printed.startswith(">") else ratio >= claimed
    return Claim(text, printed, f"{units.significant(ratio)}x", "holds" if holds else "does not hold")


def _accuracy(results: Sequence[Result]) -> Claim:
    text = "nearly as accurate as VGG16 (top-1)"
    mobilenet_row, vgg16_row = paper.row_of(_MOBILENET), paper.row_of(paper.VGG16)
    assert mobilenet_row is not None and vgg16_row is not None
    printed = f"{mobilenet_row.top1_percent:.1f} % and {vgg16_row.top1_percent:.1f} %"
    pair = _measured_pair(results)
    if pair is None:
        return Claim(text, printed, "needs both networks' weights and ImageNet's labels", "cannot be checked")
    mobilenet, vgg16, data = pair
    assert mobilenet.top1 is not None and vgg16.top1 is not None
    mobilenet_top1 = units.percent(mobilenet.top1, mobilenet.top1_ci95)
    here = f"{mobilenet_top1} and {units.percent(vgg16.top1, vgg16.top1_ci95)} on {data}"
    return Claim(text, printed, here, "holds" if vgg16.top1 - mobilenet.top1 <= _MAX_TOP1_GAP else "does not hold")


def _measured_pair(results: Sequence[Result]) -> tuple[Accuracy, Accuracy, str] | None:
    """Return MobileNet's and VGG16's accuracy in fp32 at 224 on the same images of 1000 classes, and their name."""
    compared = (paper.row_of(_MOBILENET), paper.row_of(paper.VGG16))
    measured = {
        (result.cell.model.family, result.data.fingerprint): (accuracy, result.data)
        for result in results
        if (accuracy := result.measured.accuracy) is not None and accuracy.top1 is not None
        and result.data is not None and result.data.classes == 1000 and result.cell.precision == "fp32"
        and paper.row_of(result.cell.model) in compared
    }  # fmt: skip
    for (family, fingerprint), (accuracy, data) in measured.items():
        vgg16 = measured.get(("vgg16", fingerprint))
        if family == "mobilenet_v1" and vgg16 is not None:
            return accuracy, vgg16[0], data.name
    return None
