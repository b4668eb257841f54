"""A machine's ceilings (peak Mult-Adds/s and bytes/s): measured once in a child process, then cached."""

from __future__ import annotations

from importlib import metadata
from typing import get_args

from mbbench import cache
from mbbench.errors import MbbenchError
from mbbench.events import Announce, Preparing
from mbbench.machine import Machine, cache_sizes
from mbbench.measure.jobs import roofs
from mbbench.measure.process import raise_failure, run_in_child
from mbbench.result import Ceilings
from mbbench.spec import Precision, Settings, content_key

_KERNELS_VERSION = 1  # part of the cache key; increment it when jobs/roofs.py changes what it measures


def machine_ceilings(machine: Machine, cpus: tuple[int, ...], settings: Settings, announce: Announce) -> Ceilings:
    """Return the machine's ceilings on `settings.threads`, measured if they are not cached. Raises `MbbenchError`."""
    key = content_key(machine.id, settings.threads, metadata.version("torch"), _KERNELS_VERSION)

    def measure_ceilings() -> Ceilings:
        announce(Preparing("measuring the machine's ceilings", 0, 0))
        job = roofs.Job(settings=settings, cpus=cpus, precisions=cell_precisions(machine), caches=cache_sizes(cpus))
        report = run_in_child(job, roofs.START)
        raise_failure(report.failure)
        if report.ceilings is None:
            raise MbbenchError("the process that measures the ceilings returned none", "report this bug")
        return report.ceilings

    return cache.load_or_make(cache.root() / "ceilings" / f"{key}.json", Ceilings, measure_ceilings)


def cell_precisions(machine: Machine) -> tuple[Precision, ...]:
    """Return the precisions a cell may run in: native ones, and INT8, for which every runtime has integer kernels."""
    return tuple(name for name in get_args(Precision) if name in {"fp32", "int8", *machine.native})
