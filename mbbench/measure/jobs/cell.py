"""All phases of measuring one cell; the report is saved after each."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from mbbench import registry, stats
from mbbench.backend import Artifact, Backend, LayerAudit, Session, Stage, pick_device
from mbbench.machine.kernel import throttle_count
from mbbench.measure import accuracy, curves, energy, introspection, latency, memory
from mbbench.measure.child import Save
from mbbench.measure.serving import images_per_query, run_scenario
from mbbench.result import ColdStart, Failure, Measured, Memory, Parity, Phase
from mbbench.spec import PARITY_IMAGES, Preprocessing, Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything the child needs, as files and plain data."""

    artifact: Artifact
    backend: str
    device: str
    settings: Settings
    cpus: tuple[int, ...]
    images: Path  # .npy, uint8 (N, H, W, 3)
    labels: Path | None  # .npy, int64 (N,)
    reason_without_top1: str | None  # why `labels` is None
    reference: Path | None  # .npy, float32 (N, classes): PyTorch's logits; None: accuracy is evaluated elsewhere
    expected: Path  # .npy, float32 (M, classes): the logits that the parity check expects of the first images
    preprocessing: Preprocessing


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The report that the child writes; `reasons` explain null figures.

    `throttled`: phase -> the number of periods in which a CPU limit stopped the process; only phases with such periods.
    """

    phase: str  # the current phase
    measured: Measured
    reasons: dict[str, str]
    failure: Failure | None = None
    throttled: dict[str, int] = field(default_factory=dict)


START = Report(phase="start", measured=Measured(), reasons={})


class Stages:
    """The times and memory readings at the boundaries of the stages in which a session is opened.

    An instance is the `stage` callback of `Backend.open`.
    """

    def __init__(self) -> None:
        self.starts: dict[str, float] = {}
        self.memory: list[Memory] = []
        self._phase: Phase = "start"

    def __call__(self, stage: Stage) -> None:
        self.end_phase()
        self.starts[stage] = perf_counter()
        self._phase = stage

    def end_phase(self, next_phase: Phase = "first_inference") -> None:
        """Read the memory at the end of the current phase and begin `next_phase`."""
        self.starts["end"] = perf_counter()
        if (reading := memory.read(self._phase)) is not None:
            self.memory.append(reading)
        self._phase = next_phase

    def cold(self, first_inference_s: float) -> tuple[ColdStart, dict[str, str]]:
        """Return the durations of the stages, and the reason for a missing one."""
        starts = self.starts
        load = starts.get("load")
        cold = ColdStart(
            import_s=starts.get("load", starts["compile"]) - starts["import"],
            load_s=None if load is None else starts["compile"] - load,
            compile_s=starts["end"] - starts["compile"],
            first_inference_ms=first_inference_s * 1e3,
        )
        return cold, {"cold.load_s": "the runtime reads and compiles in one call"} if load is None else {}


class _Progress:
    """The report so far, saved at every change."""

    def __init__(self, save: Save[Report]) -> None:
        self._save = save
        self._throttle_count = throttle_count()
        self.report = START

    def save(self, **changes: object) -> None:
        """Save the report with `changes`, and how often the current phase was throttled."""
        throttled, before = dict(self.report.throttled), self._throttle_count
        self._throttle_count = throttle_count()
        if before is not None and self._throttle_count is not None and self._throttle_count > before:
            phase = self.report.phase
            throttled[phase] = throttled.get(phase, 0) + self._throttle_count - before
        self.report = replace(self.report, throttled=throttled, **changes)  # type: ignore[arg-type]
        self._save(self.report)

    def add(self, next_phase: str, reasons: dict[str, str] | None = None, **measured: object) -> None:
        """Add figures of the current phase, and the reasons for missing ones; begin `next_phase`."""
        self.save(
            phase=next_phase,
            measured=replace(self.report.measured, **measured),  # type: ignore[arg-type]
            reasons={**self.report.reasons, **(reasons or {})},
        )


def measure(job: Job, spare_cpus: Collection[int], save: Save[Report]) -> Report:
    """Run all phases in order. `spare_cpus` prepare images while nothing is timed. Raises `MbbenchError`."""
    import numpy as np

    from mbbench.data.feed import full_batch

    progress = _Progress(save)
    progress.save(phase="open")
    settings, batch = job.settings, job.settings.batch
    images = np.load(job.images, mmap_mode="r")
    labels = None if job.labels is None else np.load(job.labels)
    timed = full_batch(images, job.preprocessing, batch)

    stages = Stages()
    backend = registry.load(job.backend)
    with backend.open(job.artifact, job.device, threads=settings.threads, stage=stages) as session:
        stages.end_phase()
        before = perf_counter()
        session.run(timed)
        first_inference_s = perf_counter() - before
        cold, reasons = stages.cold(first_inference_s)
        stages.end_phase("steady")
        effective = {**session.facts, **_affinity()}
        progress.add("parity", reasons, cold=cold, memory=tuple(stages.memory), effective=effective)
        parity_images = min(PARITY_IMAGES, len(images))

        def check_parity(size: int) -> Parity:
            return accuracy.check_parity(
                session, images[:parity_images], np.load(job.expected, mmap_mode="r")[:parity_images],
                job.preprocessing, size, job.artifact.precision,
            )  # fmt: skip

        parity = check_parity(batch)
        progress.add("latency", parity=parity)
        accuracy.require_parity(parity)
        _measure_latency(session, timed, settings, stages, progress)
        device_bytes, reasons = introspection.device_memory_bytes(session)
        progress.add("throughput", reasons, memory=tuple(stages.memory), device_memory_bytes=device_bytes)

        if settings.bulk_batch != batch:  # a converter may have fixed the batch size somewhere inside
            accuracy.require_parity(
                check_parity(settings.bulk_batch),
                f"; batch {batch} is right, batch {settings.bulk_batch} is wrong",
            )

        def call_of(size: int) -> Callable[[], object]:
            batch_images = full_batch(images, job.preprocessing, size)
            return lambda: session.run(batch_images)

        with latency.no_garbage_collection():
            throughputs = latency.measure_throughputs(
                call_of, batch=batch, bulk_batch=settings.bulk_batch, seconds=settings.throughput_s
            )
        best = max(throughputs, key=lambda throughput: throughput.images_per_s)
        progress.add("accuracy", throughput=best, throughputs=throughputs)
        if job.reference is not None:
            answers = accuracy.collect_answers(
                session, images, labels, np.load(job.reference, mmap_mode="r"), job.preprocessing,
                settings.bulk_batch, job.reason_without_top1, spare_cpus,
            )  # fmt: skip
            figures, reasons = accuracy.accuracy_figures(answers)
            progress.add("accuracy", reasons, accuracy=figures)
        progress.save(phase="audit")
        if isinstance(session, LayerAudit):
            progress.add("curves", layers=session.executed())
        with latency.no_garbage_collection():
            if settings.idle_ms is not None:
                duty_cycle = curves.measure_duty_cycle(lambda: session.run(timed), settings.idle_ms)
                progress.add("curves", duty_cycle=duty_cycle)
            if settings.sustain_s is not None:
                sustained = curves.measure_sustained(lambda: session.run(timed), settings.sustain_s)
                progress.add("curves", sustained=sustained)
        progress.save(phase="scenarios")
        _run_scenarios(backend, session, job, images, spare_cpus, progress)
        progress.save(phase="energy")
        device = pick_device(job.device, backend.devices())
        joules, reasons = energy.measure_energy(
            lambda: session.run(timed), batch=batch, device=device, seconds=settings.energy_s
        )
        progress.add("device times", reasons, energy=joules)
        assert progress.report.measured.latency is not None
        runs = introspection.profile_runs(progress.report.measured.latency.median_ms)
        device_times, reasons = introspection.device_times(session, timed, runs)
        progress.add("profile", reasons, device_times=device_times)
        node_times, reasons = introspection.node_times(session, timed, runs)
        progress.add("close", reasons, node_times=node_times, node_runs=runs if node_times else None)
    return replace(progress.report, phase="done")


def _run_scenarios(
    backend: Backend,
    session: Session,
    job: Job,
    images: NDArray[np.uint8],
    spare_cpus: Collection[int],
    progress: _Progress,
) -> None:
    """Run the scenarios of the settings; raises `RequirementError`."""
    from mbbench.data.feed import full_batch

    parity = progress.report.measured.parity
    assert parity is not None
    for scenario in job.settings.scenarios:
        query = full_batch(images, job.preprocessing, images_per_query(scenario, job.settings))
        result, reason = run_scenario(
            scenario, backend, job.artifact, job.device, session, query, job.settings, parity.tolerance, spare_cpus
        )
        served = progress.report.measured.served
        progress.add(
            "scenarios",
            {} if reason is None else {f"served.{scenario}": reason},
            served=served if result is None else (*served, result),
        )


def _measure_latency(session: Session, images: object, settings: Settings, stages: Stages, progress: _Progress) -> None:
    """Warm up, read the steady memory, and time calls.

    Memory is read before timing, so that the samples do not count.
    """
    run = session.run

    def call() -> object:
        return run(images)  # type: ignore[arg-type]

    with latency.no_garbage_collection():
        warmed = latency.warm_up(call, max_s=settings.warmup_max_s)
        stages.end_phase()
        samples = latency.time_calls(
            call,
            min_samples=settings.min_samples,
            min_s=settings.min_s,
            max_s=latency.timing_limit_s(settings, warmed.seconds),
            enough=stats.is_precise,
        )
    rounded = [latency.round_sample(ns) for ns in samples]
    figures, reasons = latency.latency_figures(rounded, batch=settings.batch, warmed=warmed)
    progress.add("memory", reasons, latency=figures)


def _affinity() -> dict[str, str]:
    """Return the CPUs that this process is pinned to, as reported by the kernel; empty where it cannot pin."""
    if not hasattr(os, "sched_getaffinity"):
        return {}
    return {"cpus": ",".join(map(str, sorted(os.sched_getaffinity(0))))}
