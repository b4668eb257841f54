"""A machine's ceilings: measured once in a process of their own, then remembered."""

from __future__ import annotations

from importlib import metadata
from typing import get_args

from mbbench import cache
from mbbench.errors import MbbenchError
from mbbench.events import Announce, Working
from mbbench.machine import Machine, cache_sizes
from mbbench.measure.jobs import roofs
from mbbench.measure.process import require, run_in_child
from mbbench.result import Ceilings
from mbbench.spec import Precision, Settings, content_key

_KERNELS = 1  # raise it when measure/roofs.py measures otherwise


def of(machine: Machine, cpus: tuple[int, ...], settings: Settings, announce: Announce) -> Ceilings:
    """What the machine can do on `settings.threads`, measured if it is not known. Raises `MbbenchError`."""
    key = content_key(machine.id, settings.threads, metadata.version("torch"), _KERNELS)

    def measure() -> Ceilings:
        announce(Working("measuring the machine's ceilings", 0, 1))
        job = roofs.Job(settings=settings, cpus=cpus, precisions=precisions(machine), caches=cache_sizes(cpus))
        report = run_in_child(job, roofs.START)
        require(report.failure)
        if report.ceilings is None:
            raise MbbenchError("the process that measures ceilings said nothing", "please report it")
        return report.ceilings

    return cache.remember(cache.root() / "ceilings" / f"{key}.json", Ceilings, measure)


def precisions(machine: Machine) -> tuple[Precision, ...]:
    """Those a cell may run in: native ones, and INT8, which every runtime has integer kernels for."""
    return tuple(name for name in get_args(Precision) if name in {"fp32", "int8", *machine.native})
