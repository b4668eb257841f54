"""torch.compile over eager PyTorch, both channels-last with batch norm folded: which mode `--backend torch` should be.

Both sessions live in one process and are timed in alternating blocks.
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
