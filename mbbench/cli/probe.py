"""A network's latency from a short run: what `mbbench compress --max-latency` searches by."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mbbench.spec import Cell, ModelSpec, RunSpec, Settings

if TYPE_CHECKING:
    from mbbench.cli.progress import Display
    from mbbench.profile import Profile

# Enough samples for a median; the search for a latency measures six networks.
_SHORT_SETTINGS = Settings(min_samples=64, min_s=0.5, max_s=3.0, throughput_s=0.1, energy_s=0.1)


def latency_ms(profile: Profile, display: Display, spec: ModelSpec) -> float:
    """Return the median latency of `spec` in the profile's first precision on its first backend, from a short run.

    The weights are random, and so are the images that calibrate INT8: neither changes the latency. `display` draws
    nothing while a child measures. Raises `MbbenchError`.
    """
    from mbbench import plan, run

    backend = plan.expand_backends(profile.backend)[0]
    cell = Cell(
        model=spec, role="subject", weights="random", backend=backend, device=profile.device,
        precision=profile.precision[0],
    )  # fmt: skip
    settings = replace(_SHORT_SETTINGS, threads=profile.settings.threads)
    with tempfile.TemporaryDirectory() as folder:
        request = RunSpec(
            cells=(cell,), data=profile.data, images=16, settings=settings, calibration="random",
            skip_broken=profile.skip_broken,
        )  # fmt: skip
        (result,) = run.run(request, Path(folder, "results.jsonl"), display)
    run.raise_for_failures([result])
    assert result.measured.latency is not None
    return result.measured.latency.median_ms
