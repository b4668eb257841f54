"""How well `mbbench fit` predicts the networks that it does not measure, and finds the border of what fits.

    .venv/bin/python benchmarks/fit.py measure TIMES.jsonl BACKENDS PRECISIONS [ALPHAS RESOLUTIONS]
    .venv/bin/python benchmarks/fit.py evaluate TIMES.jsonl

`measure` opens a session for every network of a grid (default: 4 widths by 4 resolutions) and times them in turns, so
that drift hits all alike. Calls in which another process took the CPU do not count. Networks that the file has already
are left out. `evaluate` replays these times; it needs no runtime. Targets, for 4 by 4 networks after 8 measured ones:
median error of the others at most 4 %, worst at most 12 %. For 8 by 8: the border within one step of alpha after at
most 10 measured networks.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from time import perf_counter_ns
from typing import Any

from common import images, pin, row

from mbbench import plan, registry
from mbbench.analysis.choose import Limits
from mbbench.analysis.layer_times import attribute
from mbbench.artifacts import prepare
from mbbench.backend import Session, pick_device
from mbbench.fit.latency import Predictor
from mbbench.fit.law import Timing
from mbbench.fit.measurement import Measurement, place_of
from mbbench.fit.search import search
from mbbench.fit.spread import spread
from mbbench.measure.introspection import node_times
from mbbench.measure.latency import no_garbage_collection
from mbbench.models.cost import cost_of
from mbbench.profile import Profile
from mbbench.spec import Cell, ModelSpec, Precision, RunSpec

_ALPHAS, _RESOLUTIONS = (0.25, 0.5, 0.75, 1.0), (128, 160, 192, 224)
_VISIT, _CALLS, _ROUNDS = 5, 60, 300  # calls of a visit, calls that count, most visits

Grid = Mapping[tuple[float, int], Timing]


def measure(path: Path, backend: str, precision: Precision, alphas: tuple[float, ...], sides: tuple[int, ...]) -> None:
    """Append the times of every network that `path` does not have yet."""
    profile = Profile(
        alpha=alphas, res=sides, backend=(backend,), precision=(precision,), weights="random", calibration="random",
        images=1,
    )  # fmt: skip
    spec = plan.plan(profile)
    stored = read(path).get((backend, precision), {}) if path.exists() else {}
    opened = [open_session(spec, cell) for cell in spec.cells if place_of(cell.model) not in stored]
    calls: list[list[float]] = [[] for _ in opened]
    with no_garbage_collection():
        for _ in range(_ROUNDS):
            for (model, session), times in zip(opened, calls, strict=True):
                if len(times) < _CALLS:
                    times += visit(session, images(model))
    for (model, session), times in zip(opened, calls, strict=True):
        nodes, _ = node_times(session, images(model), 20)
        layers = attribute(nodes, 20, cost_of(model).layers, 1).layers if nodes else ()
        record = {
            "backend": backend, "precision": precision, "alpha": model.alpha, "resolution": model.resolution,
            "classes": model.classes, "calls": len(times), "median_ms": statistics.median(times),
            "layer_ms": {layer.name: layer.median_ms for layer in layers},
        }  # fmt: skip
        with path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        session.close()
    print(f"{len(opened)} networks in {precision} on {backend}", flush=True)


def open_session(spec: RunSpec, cell: Cell) -> tuple[ModelSpec, Session]:
    """Return the network with its number of classes, and a session with one thread."""
    backend = registry.load(cell.backend)
    device = pick_device("", registry.probe(cell.backend).devices)
    ready = prepare.prepare_cell(spec, cell, backend, device, lambda _: None)
    exported = prepare.make_artifact(spec, ready, lambda _: None)
    artifact = exported.artifact(ready.cell.model, 1, cell.precision)
    return ready.cell.model, backend.open(artifact, device, threads=1, stage=lambda _: None)


def visit(session: Session, image: Any) -> list[float]:
    """Return the times in ms of the calls during which no other process took the CPU, after one discarded call."""
    session.run(image)
    times = []
    for _ in range(_VISIT):
        switches, start = getrusage(RUSAGE_SELF).ru_nivcsw, perf_counter_ns()
        session.run(image)
        end = perf_counter_ns()
        if getrusage(RUSAGE_SELF).ru_nivcsw == switches:
            times.append((end - start) / 1e6)
    return times


def read(path: Path) -> dict[tuple[str, str], dict[tuple[float, int], Timing]]:
    """Return the times in the file: (backend, precision) -> (alpha, resolution) -> timing."""
    grids: dict[tuple[str, str], dict[tuple[float, int], Timing]] = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        model = ModelSpec(alpha=record["alpha"], resolution=record["resolution"], classes=record["classes"])
        grid = grids.setdefault((record["backend"], record["precision"]), {})
        grid[place_of(model)] = Timing(model, record["median_ms"], 0.0, record["layer_ms"])
    return grids


def held_out_errors(grid: Grid, count: int) -> list[float]:
    """Return the errors, as shares, of the networks that are not among the `count` measured ones."""
    measured = [place_of(model) for model in spread([timing.model for timing in grid.values()], count)]
    predictor = Predictor([grid[place] for place in measured])
    others = [timing for place, timing in grid.items() if place not in measured]
    predictions = predictor.predict([timing.model for timing in others])
    return [abs(p.median_ms / t.median_ms - 1) for p, t in zip(predictions, others, strict=True)]


def border_search(grid: Grid, limit_ms: float, max_cells: int) -> tuple[int, int]:
    """Return how many networks the search measured, and by how many steps of alpha it misses the border at most."""
    models = [timing.model for timing in grid.values()]

    def measure(model: ModelSpec) -> Measurement:
        timing = grid[place_of(model)]
        return Measurement(timing=timing, p99_ms=timing.median_ms)

    fit = search(models, Limits(max_p99_ms=limit_ms), measure, max_cells=max_cells)
    alphas = sorted({model.alpha for model in models})
    steps = []
    for line in fit.border:
        fitting = [alpha for alpha in alphas if grid[alpha, line.resolution].median_ms <= limit_ms]
        true = alphas.index(max(fitting)) if fitting else -1
        steps.append(abs(true - (-1 if line.largest is None else alphas.index(line.largest.model.alpha))))
    return len(fit.measured), max(steps)


def evaluate(path: Path) -> None:
    row("4 x 4, 8 measured", "median", "worst")
    grids = read(path)
    for (backend, precision), grid in grids.items():
        small = {place: timing for place, timing in grid.items() if place[0] in _ALPHAS and place[1] in _RESOLUTIONS}
        if len(small) == len(_ALPHAS) * len(_RESOLUTIONS):
            errors = held_out_errors(small, 8)
            row(f"{precision} on {backend}", f"{statistics.median(errors):.1%}", f"{max(errors):.1%}")
    row("8 x 8", "limit, ms", "measured", "steps off")
    for (backend, precision), grid in grids.items():
        if len(grid) >= 64:
            times = [timing.median_ms for timing in grid.values()]
            for share in (0.2, 0.35, 0.5, 0.65, 0.8):
                limit_ms = math.exp(math.log(min(times)) * (1 - share) + math.log(max(times)) * share)
                measured, steps = border_search(grid, limit_ms, 10)
                row(f"{precision} on {backend}", limit_ms, str(measured), str(steps))


def _numbers(texts: Sequence[str], index: int, kind: Callable[[str], Any], default: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(map(kind, texts[index].split(","))) if len(texts) > index else default


def main() -> None:
    command, path, *rest = sys.argv[1:]
    if command == "evaluate":
        evaluate(Path(path))
        return
    pin()
    precision: Any
    for precision in rest[1].split(","):
        for backend in rest[0].split(","):
            measure(
                Path(path), backend, precision, _numbers(rest, 2, float, _ALPHAS), _numbers(rest, 3, int, _RESOLUTIONS)
            )


if __name__ == "__main__":
    main()
