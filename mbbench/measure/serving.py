"""One scenario, asked of a backend: of the open session for one query at a time, of requests of its own for several."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from mbbench.backend import Artifact, Backend, Session
from mbbench.errors import BackendError
from mbbench.measure import scenarios
from mbbench.measure.latency import no_garbage_collection
from mbbench.measure.requests import calling_from, open_requests
from mbbench.result import Served
from mbbench.spec import Scenario, Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def batch_of(scenario: Scenario, settings: Settings) -> int:
    """Images in a query; in offline as many as in a timed call."""
    return {"single-stream": 1, "multi-stream": scenarios.MULTI, "offline": settings.batch, "server": 1}[scenario]


def serve(
    scenario: Scenario,
    backend: Backend,
    artifact: Artifact,
    device: str,
    session: Session,
    images: NDArray[np.float32],
    settings: Settings,
    tolerance: float,
    spare_cpus: Collection[int],
) -> tuple[Served | None, str | None]:
    """What the scenario comes to with queries of `images`, or why that is not known.

    Raises `RequirementError` if several requests at once answer otherwise than `session`, but for `tolerance`.
    """
    seconds = settings.scenario_s
    if scenario in ("single-stream", "multi-stream"):
        with no_garbage_collection():
            return scenarios.streamed(scenario, session, images, seconds=seconds), None
    own = replace(artifact, batch=len(images))
    found: Served | None
    reason: str | None
    try:
        with (
            open_requests(backend, own, device, threads=settings.threads, streams=settings.streams) as requests,
            calling_from(spare_cpus),
            no_garbage_collection(),
        ):
            if scenario == "offline":
                found, reason = scenarios.offline(requests, images, seconds=seconds), None
            else:
                found, reason = scenarios.server(requests, images, bound_ms=settings.bound_ms, seconds=seconds)
            scenarios.require_same(requests, session, images, tolerance)
    except BackendError as error:
        return None, str(error)
    return found, reason
