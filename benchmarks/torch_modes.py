"""Median latency of torch.compile divided by that of eager PyTorch. Target: below 1.

    .venv/bin/python benchmarks/torch_modes.py

Both run channels-last with batch norm folded. Their sessions are in one process and are timed in alternating blocks.
The result decides which mode `--backend torch` uses.
"""

from __future__ import annotations

from common import NARROW, WIDE, alternate, images, median_ms, open_session, pin, row

from mbbench.spec import ModelSpec

_SECONDS = 1.0
_ROUNDS = 10


def compare(spec: ModelSpec) -> tuple[float, float, float]:
    inputs = images(spec)
    with open_session("torch", spec) as compiled, open_session("torch-eager", spec) as eager:
        return alternate(
            lambda: median_ms(lambda: compiled.run(inputs), _SECONDS),
            lambda: median_ms(lambda: eager.run(inputs), _SECONDS),
            _ROUNDS,
        )


if __name__ == "__main__":
    pin()
    row("model", "compile, ms", "eager, ms", "ratio")
    for spec in (NARROW, ModelSpec(alpha=0.5, resolution=128), WIDE, ModelSpec(family="googlenet", resolution=128)):
        row(spec.label, *compare(spec))
