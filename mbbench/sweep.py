"""`mbbench sweep`: a grid of cells, of which only those are measured that are not known yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from mbbench import cache, run, store
from mbbench.errors import UsageError
from mbbench.events import Notify
from mbbench.result import Result
from mbbench.spec import RunSpec


def sweep(spec: RunSpec, results: Path, notify: Notify, cluster: str | None = None) -> Iterator[Result]:
    """A result of every cell, in order: the one in `results` with the same id if it has no failure, or a new one.

    The id names the weights and compression (by the artifact's content), the network, the test images, the settings,
    the versions and the machine, so that a result is known only where a new one would say the same. What is asked for
    is kept beside `results`: after a crash `resumed` has it. `cluster` is the address of a Dask scheduler whose workers
    measure in place of this machine, in any order.
    """
    store.require_writable(results)
    with cache.atomic(_plan(results)) as temporary:
        temporary.write_bytes(msgspec.json.encode(spec))
    known = {result.id: result for result in store.read(results) if result.failure is None}
    if cluster is None:
        yield from run.run(spec, results, notify, known)
    else:
        from mbbench import cluster as machines

        yield from machines.sweep(spec, results, notify, known, cluster)


def resumed(results: Path) -> RunSpec:
    """What the last sweep into `results` was asked for. Raises `UsageError`."""
    path = _plan(results)
    try:
        return msgspec.json.decode(path.read_bytes(), type=RunSpec)
    except FileNotFoundError:
        raise UsageError(f"no sweep into {results} was begun", "name its --results, or leave out --resume") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"{path} cannot be read: {error}", "begin the sweep anew, without --resume") from error


def _plan(results: Path) -> Path:
    return results.with_suffix(".sweep.json")
