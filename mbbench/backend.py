"""The contract between mbbench and an inference runtime. This is all that a backend's author needs to read.

A backend is one module with one `Backend` class, named by an entry point of the group `mbbench.backends`; the entry
point's name is what the user types after `--backend`. Heavy imports belong inside the methods.
`mbbench.testing.BackendContract` is the conformance suite; CONTRIBUTING.md shows a whole backend.
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

from mbbench.errors import BackendError
from mbbench.spec import ModelSpec, Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Format = Literal["onnx", "safetensors", "tflite", "pte", "ncnn", "engine"]
CODE: tuple[Format, ...] = ("engine",)  # formats that run what whoever wrote the file put into it
Stage = Literal["import", "load", "compile"]
Dialect = Literal["fp32", "bf16", "fp16", "u8s8", "u8s8f", "u8u8", "u8s7", "s8s8", "s8s8f"]


@dataclass(frozen=True, slots=True)
class Artifact:
    """An exported model on disk, batch norm folded into the convolutions.

    `onnx`: one input `images` (N, 3, H, W) float32 with N symbolic, one output `logits` (N, classes) float32.
    `safetensors`: the parameters of `mbbench.models.fold_batch_norm(mbbench.models.build(spec))`.
    `engine` is what an `AheadOfTime` backend built of one of these, the others are what a `Converter` made of it.

    The dialect `fp32` is plain; `bf16` and `fp16` hold all but input and output in that type. `u8s8` (uint8
    activations, int8 weights, int32 biases), `u8s8f` (the same but for the first convolution and the depthwise one
    after it, which stay in fp32), `u8u8` (the weights of u8s8 as uint8 around 128), `u8s7` (weights from -64 to 64),
    `s8s8` (int8 symmetric throughout, fp32 biases) and `s8s8f` (the same but for the first convolution and all
    depthwise ones, which stay in fp32) have Q/DQ pairs around what is to be int8.
    """

    path: Path
    format: Format
    precision: Precision  # what to execute
    dialect: Dialect  # what the file holds
    spec: ModelSpec
    batch: int  # the batch size to tune for; `Session.run` must take others too
    sha256: str

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return (self.batch, 3, self.spec.resolution, self.spec.resolution)


class Session(ABC):
    """One compiled model on one device; closes itself at the end of a `with` block."""

    facts: Mapping[str, str]  # what the runtime says it really did: `precision`, `threads`, ...

    @abstractmethod
    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (N, classes) in host memory of C-contiguous `images` (N, 3, H, W). Blocks; the caller has the clock.

        The result stays valid after the next call.
        """

    def close(self) -> None:  # noqa: B027  (an optional hook)
        """Release the device."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Executed:
    """A node of what a runtime made of the model: the names it has from the artifact, its type, its precision."""

    names: tuple[str, ...]
    type: str
    precision: str


@dataclass(frozen=True, slots=True)
class NodeTime:
    """How long a node of what a runtime made of the model takes, by the runtime's own clock; names as in `Executed`."""

    names: tuple[str, ...]
    type: str
    precision: str
    median_ms: float


@dataclass(frozen=True, slots=True)
class DeviceCall:
    """A call by its device's own clock: from host memory to the device's, computing, and back."""

    to_device_ms: float
    compute_ms: float
    to_host_ms: float


class LayerAudit(ABC):
    """What a `Session` may also be: one whose runtime tells what it made of the model."""

    @abstractmethod
    def executed(self) -> tuple[Executed, ...]:
        """The nodes that the runtime executes, in order; called once, after all timing."""


class LayerProfile(ABC):
    """What a `Session` may also be: one whose runtime tells how long each node takes."""

    @abstractmethod
    def profile(self, images: NDArray[np.float32], runs: int) -> tuple[NodeTime, ...]:
        """Each executed node's median of `runs` calls after a first, by the runtime's own clock.

        Called once, after all timing. A second session may count, since counting costs time. Empty: they fit no layers.
        """


class Requests(ABC):
    """Several requests under way at once; closes itself at the end of a `with` block."""

    facts: Mapping[str, str]  # what the runtime says it really did: `streams`, `requests`, `threads`, ...

    @abstractmethod
    def submit(self, images: NDArray[np.float32], done: Callable[[NDArray[np.float32]], None] | None = None) -> None:
        """Begin with C-contiguous `images` (N, 3, H, W), which nobody changes meanwhile; blocks while all are busy.

        `done` gets the logits (N, classes), in any thread, once they are in host memory; they are valid until it
        returns.
        """

    @abstractmethod
    def wait(self) -> None:
        """Until every request has ended. Raises `BackendError` if one failed."""

    @abstractmethod
    def close(self) -> None:
        """End all threads, and release the device."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Streams(ABC):
    """What a `Backend` may also be: one whose runtime itself keeps several requests under way.

    Without it mbbench opens a session for each stream, in a thread of its own.
    """

    @abstractmethod
    def open_requests(self, artifact: Artifact, device: str, *, threads: int, streams: int | None) -> Requests:
        """Compile for throughput at the artifact's batch, on `threads` in all; raises `BackendError`.

        `streams`: how many requests are computed at once; None leaves it to the runtime.
        """


class OnDevice(ABC):
    """What a `Session` may also be: one that computes on a device with a clock and memory of its own."""

    @abstractmethod
    def device_times(self, images: NDArray[np.float32], runs: int) -> tuple[DeviceCall, ...]:
        """Each of `runs` calls after a first, by the device's clock. Called once, after all timing."""

    @abstractmethod
    def device_memory_bytes(self) -> int:
        """What this process holds of the device's memory, by the driver's account; raises `BackendError`."""


class Backend(ABC):
    """Cheap to construct; describes its runtime and opens artifacts on it."""

    formats: ClassVar[tuple[Format, ...]]  # the artifact formats it opens, best first

    @abstractmethod
    def versions(self) -> Mapping[str, str]:
        """Distribution name -> version, from package metadata, without importing the runtime; raises `BackendError`."""

    @abstractmethod
    def devices(self) -> Mapping[str, str]:
        """What the user types after `--device` -> the chip's full name, the default first; raises `BackendError`."""

    @abstractmethod
    def precisions(self, device: str) -> frozenset[Precision]:
        """The precisions the device executes natively."""

    def dialects(self, device: str) -> Mapping[Precision, Dialect]:
        """The file in which each precision is fast, and right, on the device."""
        return {"fp32": "fp32"}

    def native(self, device: str) -> Mapping[Precision, Dialect]:
        """The precisions that are both native on the device and have a file."""
        dialects, precisions = self.dialects(device), self.precisions(device)
        return {name: dialects[name] for name in get_args(Precision) if name in precisions & dialects.keys()}

    @abstractmethod
    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        """Compile the artifact; raises `BackendError` that says how to fix it.

        Call `stage("import")`, `stage("load")` and `stage("compile")` as each of these begins: mbbench reads its clock
        and the kernel's memory counters there. Leave out `load` where the runtime reads and compiles in one call.
        Nothing may be left to compile when this returns.
        """


class Converter(ABC):
    """What a `Backend` may also be: one that does not open what mbbench exports, but a file that it makes of that.

    `Backend.formats` is then what it converts from, and `open` gets what `convert` wrote. Its tools may be heavy: they
    are no part of what is measured, and a machine that has the file needs none of them.
    """

    makes: ClassVar[Format]

    @abstractmethod
    def tools(self) -> Mapping[str, str]:
        """Distribution name -> version of what converts; raises `BackendError` for one that is missing."""

    @abstractmethod
    def convert(self, artifact: Artifact, target: Path) -> None:
        """Write `target` from `artifact`, to run in the artifact's precision; raises `BackendError`.

        The same artifact and tools give a file that computes the same: it is kept, and not made again.
        """


class AheadOfTime(ABC):
    """What a `Backend` may also be: one that compiles to a file, which it opens, for a chip that need not be here.

    `precisions`, `dialects` and `build` take a compute capability (`8.9`) for a device too.
    """

    builds: ClassVar[Format]

    @abstractmethod
    def build(self, artifact: Artifact, target: Path, device: str) -> None:
        """Write `target` from `artifact`; raises `BackendError`."""


def pick_device(wanted: str, known: Collection[str]) -> str:
    """The device as the runtime spells it; the empty string means the first. Raises `BackendError` with the list."""
    for name in known:
        if wanted.lower() in ("", name.lower()):
            return name
    raise BackendError(f"no device {wanted!r}", f"choose one of {', '.join(known) or '(none found)'}")


def installed_version(distribution: str, remedy: str | None = None) -> str:
    """Return the version of an installed distribution, from its metadata. Raises `BackendError` if it is missing."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        fix = remedy or f"run `pip install {distribution}`"
        raise BackendError(f"{distribution} is not installed", fix) from None


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Discard what is written to the process's standard error, by native code too."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as discard:
            os.dup2(discard.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
