"""Latency of mbbench's PyTorch backends, divided by that of a bare loop in the same process.

    .venv/bin/python benchmarks/torch_vs_loop.py [--backend torch-eager] [--device cuda:0]

Target: 0.97 to 1.03. On a GPU a call copies the images in, computes and copies the logits out; the host's clock times
all of it, and CUDA events its computation. The session and the loop alternate.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from common import NARROW, WIDE, alternate, artifact, images, median_ms, row

from mbbench import registry
from mbbench.backend import OnDevice, Session
from mbbench.models import build, fold_batch_norm, randomize
from mbbench.spec import ModelSpec

_SECONDS = 0.5
_ROUNDS = 4
_EVENT_CALLS = 200


def mbbench_ms(session: Session, spec: ModelSpec, *, on_device: bool) -> float:
    """Return the median latency, or on a device the median time of the computation by its clock."""
    inputs = images(spec)
    if on_device:
        assert isinstance(session, OnDevice)
        return statistics.median(call.compute_ms for call in session.device_times(inputs, _EVENT_CALLS))
    return median_ms(lambda: session.run(inputs), _SECONDS)


def prepare_loop(
    spec: ModelSpec, device: torch.device, *, compiled: bool
) -> tuple[Callable[[], object], Callable[[], float]]:
    """Return a function that makes one call, and one that returns the computation's time of a call in ms, by events."""
    module = fold_batch_norm(build(spec))
    randomize(module, seed=0)
    module = module.eval().to(memory_format=torch.channels_last).to(device)  # type: ignore[call-overload]
    forward = torch.compile(module, dynamic=False) if compiled else module
    host = torch.from_numpy(images(spec))
    if device.type == "cpu":

        def call() -> object:
            with torch.inference_mode():
                return forward(host.contiguous(memory_format=torch.channels_last)).numpy()

        return call, lambda: 0.0
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    with torch.inference_mode():
        pinned = host.pin_memory()
        static = pinned.to(device)
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(side):
            for _ in range(3):
                output = forward(static.contiguous(memory_format=torch.channels_last))
        torch.cuda.synchronize(device)
        logits = torch.empty(output.shape, pin_memory=True)
        graph = torch.cuda.CUDAGraph()
        if compiled:
            with torch.cuda.graph(graph, stream=side):
                output = forward(static.contiguous(memory_format=torch.channels_last))
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]

    def work() -> object:
        with torch.inference_mode(), torch.cuda.stream(side):
            pinned.copy_(host)
            static.copy_(pinned, non_blocking=True)
            begin.record()
            if compiled:
                graph.replay()
                result = output
            else:
                result = forward(static.contiguous(memory_format=torch.channels_last))
            end.record()
            logits.copy_(result, non_blocking=True)
        side.synchronize()
        return logits.numpy().copy()

    def compute_ms() -> float:
        work()
        return float(begin.elapsed_time(end))

    return work, compute_ms


def compare(spec: ModelSpec, backend_name: str, device: str) -> None:
    """Print the ratio by the host's clock and, on a GPU, by the device's."""
    backend = registry.load(backend_name)
    call, compute_ms = prepare_loop(spec, torch.device(device), compiled=backend_name == "torch")
    with backend.open(artifact(spec), device, threads=1, stage=lambda _: None) as session:
        figures = alternate(
            lambda: mbbench_ms(session, spec, on_device=False), lambda: median_ms(call, _SECONDS), _ROUNDS
        )
        row(f"{spec.label}, host", *figures)
        if device != "cpu":
            figures = alternate(
                lambda: mbbench_ms(session, spec, on_device=True),
                lambda: statistics.median(compute_ms() for _ in range(_EVENT_CALLS)),
                _ROUNDS,
            )
            row(f"{spec.label}, compute by events", *figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", default="torch-eager", choices=["torch", "torch-eager"])
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda:N.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    row(f"{arguments.backend} on {arguments.device}", "mbbench, ms", "loop, ms", "ratio")
    for spec in (NARROW, WIDE):
        compare(spec, arguments.backend, arguments.device)
