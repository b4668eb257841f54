"""Run one scenario on a backend: on the open session for one query at a time, on new requests for several."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from mbbench.backend import Artifact, Backend, Session
from mbbench.errors import BackendError
from mbbench.measure import scenarios
from mbbench.measure.latency import no_garbage_collection
from mbbench.measure.requests import open_requests, pin_calling_thread
from mbbench.result import ScenarioResult
from mbbench.spec import Scenario, Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def images_per_query(scenario: Scenario, settings: Settings) -> int:
    """Return the number of images in a query; in offline, that of a timed call."""
    return {
        "single-stream": 1,
        "multi-stream": scenarios.MULTI_STREAM_IMAGES,
        "offline": settings.batch,
        "server": 1,
    }[scenario]


def run_scenario(
    scenario: Scenario,
    backend: Backend,
    artifact: Artifact,
    device: str,
    session: Session,
    images: NDArray[np.float32],
    settings: Settings,
    tolerance: float,
    spare_cpus: Collection[int],
) -> tuple[ScenarioResult | None, str | None]:
    """Run the scenario with queries of `images`; return its result, or None and the reason.

    Raises `RequirementError` if the logits of concurrent requests differ from those of `session` by more than
    `tolerance`.
    """
    seconds = settings.scenario_s
    if scenario in ("single-stream", "multi-stream"):
        with no_garbage_collection():
            return scenarios.run_stream(scenario, session, images, seconds=seconds), None
    artifact = replace(artifact, batch=len(images))
    result: ScenarioResult | None
    reason: str | None
    try:
        with (
            open_requests(backend, artifact, device, threads=settings.threads, streams=settings.streams) as requests,
            pin_calling_thread(spare_cpus),
            no_garbage_collection(),
        ):
            if scenario == "offline":
                result, reason = scenarios.run_offline(requests, images, seconds=seconds), None
            else:
                result, reason = scenarios.run_server(requests, images, bound_ms=settings.bound_ms, seconds=seconds)
            scenarios.require_same_logits(requests, session, images, tolerance)
    except BackendError as error:
        return None, str(error)
    return result, reason
