"""The contract between mbbench and an inference runtime.

A backend is one module with one `Backend` class, registered as an entry point in the group `mbbench.backends`. The
entry point's name is the value of `--backend`. Import heavy libraries inside the methods.
`mbbench.testing.BackendContract` is the conformance suite; CONTRIBUTING.md shows a complete backend.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self, get_args

from mbbench.errors import BackendError, choose_one
from mbbench.spec import Amount, ModelSpec, Name, Precision, Text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Format = str  # the suffix of a file: one of `EXPORTED_FORMATS`, or what a `Converter` or `AheadOfTime` backend writes
EXPORTED_FORMATS: tuple[Format, ...] = ("onnx",)  # what mbbench writes itself
DATA_FORMATS = (*EXPORTED_FORMATS, "tflite", "pte", "ncnn")  # known to execute no code when loaded, unlike any other
Stage = Literal["import", "load", "compile"]
Dialect = Literal["fp32", "bf16", "fp16", "u8s8", "u8s8f", "u8s8p", "u8u8", "u8s7", "s8s8", "s8s8f"]


@dataclass(frozen=True, slots=True)
class Artifact:
    """An exported model on disk, with batch norm folded into the convolutions.

    Formats:
        onnx    one input `images` (N, 3, H, W) float32 with symbolic N, one output `logits` (N, classes) float32
        others  built from one of these by an `AheadOfTime` backend, or converted by a `Converter` backend

    Dialects; those of INT8 have Q/DQ pairs around every int8 operator:
        fp32         all tensors in fp32
        bf16, fp16   all tensors except input and output in that type
        u8s8         uint8 activations, int8 weights, int32 biases
        u8s8f        u8s8, with the first convolution and the depthwise one after it in fp32
        u8s8p        u8s8, with fp32 between a convolution and an activation other than ReLU (a post-op)
        u8u8         u8s8, with the weights stored as uint8 around 128
        u8s7         u8s8p, with weights from -64 to 64
        s8s8         symmetric int8 activations and weights, fp32 biases
        s8s8f        s8s8, with the first convolution and all depthwise ones in fp32
    """

    path: Path
    format: Format
    precision: Precision  # to execute in
    dialect: Dialect  # of the file
    spec: ModelSpec
    batch: int  # batch size to tune for; `Session.run` must accept others too
    sha256: str

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(batch, 3, height, width) of the images."""
        return (self.batch, 3, *self.spec.size)


class Session(ABC):
    """One compiled model on one device. A context manager: leaving the `with` block closes it."""

    facts: Mapping[str, str]  # the configuration that the runtime reports as in effect: `precision`, `threads`, ...

    @abstractmethod
    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits (N, classes) of C-contiguous `images` (N, 3, H, W).

        Block until the logits are in host memory: the caller times this call. The returned array must stay valid after
        the next call.
        """

    def close(self) -> None:  # noqa: B027  (an optional hook)
        """Release the device."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Executed:
    """One node of the runtime's compiled graph. `names`: the artifact's nodes that it implements."""

    names: tuple[Text, ...]
    type: Text
    precision: Name


@dataclass(frozen=True, slots=True)
class NodeTime:
    """The time of one node of the runtime's compiled graph, by the runtime's clock. `names` as in `Executed`."""

    names: tuple[Text, ...]
    type: Text
    precision: Name
    median_ms: Amount


@dataclass(frozen=True, slots=True)
class DeviceCall:
    """The three parts of one call, by the device's clock."""

    to_device_ms: float
    compute_ms: float
    to_host_ms: float


class LayerAudit(ABC):
    """Optional base of a `Session` whose runtime reports its compiled graph."""

    @abstractmethod
    def executed(self) -> tuple[Executed, ...]:
        """Return the nodes that the runtime executes, in order. Called once, after all timing."""


class LayerProfile(ABC):
    """Optional base of a `Session` whose runtime reports the time of each node."""

    @abstractmethod
    def profile(self, images: NDArray[np.float32], runs: int) -> tuple[NodeTime, ...]:
        """Return each executed node's median over `runs` calls by the runtime's clock, after one discarded call.

        Called once, after all timing. Profiling may use a second session, since it slows calls down. Return an empty
        tuple if the times cannot be attributed to layers.
        """


class Requests(ABC):
    """Concurrent requests on one device. A context manager: leaving the `with` block closes it."""

    facts: Mapping[str, str]  # the configuration that the runtime reports as in effect: `streams`, `requests`, ...

    @abstractmethod
    def submit(self, images: NDArray[np.float32], done: Callable[[NDArray[np.float32]], None] | None = None) -> None:
        """Start a request on C-contiguous `images` (N, 3, H, W); block while all requests are busy.

        The caller does not change `images` before the request has completed. `done` is called in any thread with the
        logits (N, classes) once they are in host memory; they are valid until it returns.
        """

    @abstractmethod
    def wait(self) -> None:
        """Block until all requests have completed. Raises `BackendError` if one failed."""

    @abstractmethod
    def close(self) -> None:
        """Stop all threads and release the device."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Streams(ABC):
    """Optional base of a `Backend` whose runtime schedules concurrent requests itself.

    For other backends mbbench opens one session per stream, each in its own thread.
    """

    @abstractmethod
    def open_requests(self, artifact: Artifact, device: str, *, threads: int, streams: int | None) -> Requests:
        """Compile for throughput at the artifact's batch size, on `threads` threads in total.

        `streams` is the number of requests computed at once; None lets the runtime choose. Raises `BackendError`.
        """


class OnDevice(ABC):
    """Optional base of a `Session` on a device with its own clock and memory."""

    @abstractmethod
    def device_times(self, images: NDArray[np.float32], runs: int) -> tuple[DeviceCall, ...]:
        """Return the times of `runs` calls by the device's clock, after one discarded call.

        Called once, after all timing.
        """

    @abstractmethod
    def device_memory_bytes(self) -> int:
        """Return the device memory that this process holds, as reported by the driver. Raises `BackendError`."""


class Backend(ABC):
    """A runtime: its versions and devices, and how to open artifacts on it.

    Construction must be cheap. Methods raise `BackendError`, with a remedy.
    """

    formats: ClassVar[tuple[Format, ...]]  # artifact formats that it opens; the first is one of `EXPORTED_FORMATS`

    @abstractmethod
    def versions(self) -> Mapping[str, str]:
        """Return distribution name -> version from package metadata, without importing the runtime."""

    @abstractmethod
    def devices(self) -> Mapping[str, str]:
        """Map each value of `--device` to the chip's full name, the default first."""

    @abstractmethod
    def precisions(self, device: str) -> frozenset[Precision]:
        """Return the precisions that the device executes natively."""

    def dialects(self, device: str) -> Mapping[Precision, Dialect]:
        """Return precision -> the dialect that runs fast and correctly on the device."""
        return {"fp32": "fp32"}

    def native(self, device: str) -> Mapping[Precision, Dialect]:
        """Return the entries of `dialects` whose precision is native on the device."""
        dialects, precisions = self.dialects(device), self.precisions(device)
        return {name: dialects[name] for name in get_args(Precision) if name in precisions & dialects.keys()}

    @abstractmethod
    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        """Compile the artifact completely and return a session.

        Call `stage("import")`, `stage("load")` and `stage("compile")` at the start of each stage: mbbench reads its
        clock and the kernel's memory counters there. Omit `load` if the runtime reads and compiles in one call.
        """


class Converter(ABC):
    """Optional base of a `Backend` that opens a file converted from mbbench's exports instead of the exports.

    `Backend.formats` lists the formats that it converts; `open` receives the file that `convert` wrote. The conversion
    tools are not measured, and a machine that has the converted file does not need them.
    """

    makes: ClassVar[Format]  # any name without a path separator

    @abstractmethod
    def tools(self) -> Mapping[str, str]:
        """Return distribution name -> version of the conversion tools. Raises `BackendError` if one is missing."""

    @abstractmethod
    def convert(self, artifact: Artifact, target: Path) -> None:
        """Convert `artifact` to `target`, to run in the artifact's precision. Raises `BackendError`.

        Must be reproducible: files converted from the same artifact by the same tools compute the same, since mbbench
        caches them.
        """


class AheadOfTime(ABC):
    """Optional base of a `Backend` that compiles to a file, for a chip that may be absent, and opens such files.

    `precisions`, `dialects` and `build` accept a compute capability (`8.9`) as the device too.
    """

    builds: ClassVar[Format]

    @abstractmethod
    def build(self, artifact: Artifact, target: Path, device: str) -> None:
        """Compile `artifact` to `target`. Raises `BackendError`."""


def pick_device(name: str, devices: Collection[str]) -> str:
    """Return the device called `name`, in any case, as spelled in `devices`; "" is the first. Raises `BackendError`."""
    for device in devices:
        if name.lower() in ("", device.lower()):
            return device
    remedy = choose_one(name, devices) if devices else "check that the device and its driver are installed"
    raise BackendError(f"unknown device: {name!r}", remedy)


def installed_version(distribution: str, remedy: str | None = None) -> str:
    """Return the version of an installed distribution, from its metadata. Raises `BackendError` if it is missing."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        fix = remedy or f"run `pip install {distribution}`"
        raise BackendError(f"{distribution} is not installed", fix) from None


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Discard everything that the process writes to standard error, including native code."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as null:
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
