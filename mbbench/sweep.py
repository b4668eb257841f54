"""`mbbench sweep`: measure those cells of a grid that have no stored result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from mbbench import cache, run, store
from mbbench.errors import MbbenchError, UsageError, describe_invalid
from mbbench.events import Event, Finished, Measuring, Notify, Stated
from mbbench.result import Result
from mbbench.spec import RunSpec


def sweep(spec: RunSpec, results: Path, notify: Notify, cluster: str | None = None) -> Iterator[Result]:
    """Yield every cell's result, in order: the one stored in `results` under the cell's id, or a new one.

    The id covers the artifact's content (weights and compression), the network, the test images, the settings, the
    versions and the machine: a stored result is used only if all of these are equal and it has no failure. `spec` is
    written next to `results` when the first cell is measured, for `read_spec` after a crash. `cluster` is the address
    of a Dask scheduler whose workers measure instead of this machine; results then come in any order.
    """
    store.require_writable(results)
    stored = store.load(results, missing_ok=True).results(lambda text: notify(Stated(text)))
    known = {result.id: result for result in stored if result.failure is None}
    written = False

    def write_spec() -> None:
        nonlocal written
        if not written:
            with cache.atomic(_spec_path(results)) as temporary:
                temporary.write_bytes(msgspec.json.encode(spec))
        written = True

    def notify_and_write(event: Event) -> None:
        if isinstance(event, Measuring | Finished):
            write_spec()
        notify(event)

    if cluster is None:
        yield from run.run(spec, results, notify_and_write, known)
    else:
        from mbbench import cluster as dask_cluster

        yield from dask_cluster.sweep(spec, results, notify_and_write, known, cluster)
    write_spec()  # all results were known


def read_spec(results: Path) -> RunSpec:
    """Return the spec of the last sweep into `results`. Raises `UsageError`."""
    path = _spec_path(results)
    try:
        return msgspec.json.decode(cache.read_file(path), type=RunSpec)
    except FileNotFoundError:
        raise UsageError(f"no sweep to resume in {results}", "give its --results, or omit --resume") from None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError, MbbenchError) as error:
        cause = error.cause if isinstance(error, MbbenchError) else describe_invalid(error)
        raise UsageError(f"cannot read {path}: {cause}", "start the sweep again without --resume") from error


def _spec_path(results: Path) -> Path:
    return results.parent / f"{results.stem}.sweep.json"
