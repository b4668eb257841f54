"""How well `mbbench fit` predicts the networks that it does not measure, and finds the border of what fits.

    .venv/bin/python benchmarks/fit.py measure TIMES.jsonl [BACKENDS] [PRECISIONS] [ALPHAS RESOLUTIONS]
    .venv/bin/python benchmarks/fit.py evaluate TIMES.jsonl

`measure` opens a session for every network of a grid and times them in turns, so that drift hits all alike; networks
that the file has already are left out. A visit is a discarded call and five timed ones, whose shortest counts: a network's
time is the first decile of its visits, which other processes on the same CPU hardly change. `evaluate` replays these
times: it needs no runtime. Targets, for 4 widths by 4 resolutions after 8 measured networks: median error of the others
at most 4 %, worst at most 12 %. For 8 by 8: the border within one step after at most 10 measured networks.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter_ns

from common import images, pin, row

from mbbench.fit.latency import Predictor, Timing
from mbbench.spec import ModelSpec

_ALPHAS, _RESOLUTIONS = (0.25, 0.5, 0.75, 1.0), (128, 160, 192, 224)
_CALLS, _VISITS = 5, 80

Grid = Mapping[tuple[float, int], Timing]


def measure(
    path: Path, backends: list[str], precisions: list[str], alphas: tuple[float, ...], sides: tuple[int, ...]
) -> None:
    """Append the times of every network that `path` does not have yet, a backend and a precision at a time."""
    from mbbench import plan
    from mbbench.artifacts import prepare
    from mbbench.measure.introspection import node_times
    from mbbench.analysis.layer_times import attribute
    from mbbench.models.cost import cost_of
    from mbbench.profile import Profile

    pin()
    known = {} if not path.exists() else read(path)
    for precision in precisions:
        for backend in backends:
            profile = Profile(alpha=alphas, res=sides, backend=(backend,), precision=(precision,), weights="random",
                              calibration="random", images=1)  # fmt: skip
            spec = plan.plan(profile)
            stored = known.get((backend, precision), {})
            cells = [cell for cell in spec.cells if (cell.model.alpha, cell.model.resolution) not in stored]
            sessions, feeds = [], []
            for cell in cells:
                ready = prepare.prepare_cell(spec, cell, _backend(backend), _device(backend), lambda _: None)
                artifact = prepare.make_artifact(spec, ready, lambda _: None).artifact(
                    ready.cell.model, 1, cell.precision
                )
                session = ready.backend.open(artifact, ready.device, threads=1, stage=lambda _: None)
                sessions.append((ready.cell.model, session))
                feeds.append(images(cell.model))
            visits: list[list[float]] = [[] for _ in sessions]
            gc.disable()
            for _ in range(_VISITS):
                for (_, session), feed, times in zip(sessions, feeds, visits, strict=True):
                    times.append(_visit(lambda: session.run(feed)))
            gc.enable()
            for (model, session), feed, times in zip(sessions, feeds, visits, strict=True):
                nodes, _ = node_times(session, feed, 20)
                layers = attribute(nodes, 20, cost_of(model).layers, 1).layers if nodes else ()
                record = {
                    "backend": backend, "precision": precision, "alpha": model.alpha, "resolution": model.resolution,
                    "classes": model.classes, "visits_ms": [round(time, 5) for time in times],
                    "layer_ms": {layer.name: layer.median_ms for layer in layers},
                }  # fmt: skip
                with path.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                session.close()
            print(f"{len(sessions)} networks in {precision} on {backend}", flush=True)


def _backend(name: str):
    from mbbench import registry

    return registry.load(name)


def _device(name: str) -> str:
    from mbbench import registry
    from mbbench.backend import pick_device

    return pick_device("", registry.probe(name).devices)


def _visit(call: Callable[[], object]) -> float:
    """Return the shortest of some calls in ms, after one that brings the network into the caches."""
    call()
    times = []
    for _ in range(_CALLS):
        start = perf_counter_ns()
        call()
        times.append(perf_counter_ns() - start)
    return min(times) / 1e6


def read(path: Path) -> dict[tuple[str, str], dict[tuple[float, int], Timing]]:
    """Return the times in the file: (backend, precision) -> (alpha, resolution) -> timing."""
    grids: dict[tuple[str, str], dict[tuple[float, int], Timing]] = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        model = ModelSpec(alpha=record["alpha"], resolution=record["resolution"], classes=record["classes"])
        grid = grids.setdefault((record["backend"], record["precision"]), {})
        grid[model.alpha, model.resolution] = Timing(model, statistics.quantiles(record["visits_ms"], n=10)[0], 0.0, record["layer_ms"])
    return grids


def main() -> None:
    command, path, *rest = sys.argv[1:]
    if command == "measure":
        backends = rest[0].split(",") if rest else ["onnxruntime", "openvino", "torch"]
        precisions = rest[1].split(",") if len(rest) > 1 else ["fp32", "int8"]
        alphas = tuple(map(float, rest[2].split(","))) if len(rest) > 2 else _ALPHAS
        sides = tuple(map(int, rest[3].split(","))) if len(rest) > 3 else _RESOLUTIONS
        measure(Path(path), backends, precisions, alphas, sides)


if __name__ == "__main__":
    main()
