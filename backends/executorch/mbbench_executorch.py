"""ExecuTorch on the CPU as an mbbench backend, with programs converted ahead of time for its XNNPACK delegate."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from mbbench.backend import (
    Artifact,
    Backend,
    Converter,
    Dialect,
    Executed,
    Format,
    LayerAudit,
    LayerProfile,
    NodeTime,
    Session,
    Stage,
    installed_version,
    pick_device,
)
from mbbench.errors import BackendError, first_line
from mbbench.machine import fingerprint
from mbbench.models.cost import Layer, cost_of
from mbbench.spec import Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BULK = 16  # programs have methods for 1, 16 and the artifact's batch; other batches are split
_FLOAT = 6  # ExecuTorch's number for float32
_KERNELS = {"Conv 1x1": "GEMM", "Conv DW 3x3": "DWConv", "Fully connected": "GEMM"}
_WEIGHTED = re.compile(r"(Convolution|Fully Connected) ")
_INTEGERS = re.compile(r"\bQ[A-Z]*8")  # QS8, QC8, QC8W, QD8, QDU8, ...


class ExecuTorchBackend(Backend, Converter):
    """ExecuTorch on the CPU, with XNNPACK."""

    formats: ClassVar[tuple[Format, ...]] = ("onnx",)
    makes: ClassVar[Format] = "pte"

    def versions(self) -> Mapping[str, str]:
        return {"executorch": installed_version("executorch")}

    def tools(self) -> Mapping[str, str]:
        return {name: installed_version(name) for name in ("executorch", "torch", "mbbench-executorch")}

    def devices(self) -> Mapping[str, str]:
        self.versions()
        return {"cpu": fingerprint().cpu}

    def precisions(self, device: str) -> frozenset[Precision]:
        return frozenset({"fp32", "int8"})

    def dialects(self, device: str) -> Mapping[Precision, Dialect]:
        return {"fp32": "fp32", "int8": "u8s8"}  # XNNPACK's accumulators do not saturate on any CPU

    def convert(self, artifact: Artifact, target: Path) -> None:
        try:
            with _quietly():
                from mbbench_executorch_convert import lower

                program = lower(artifact, {_method_name(batch): batch for batch in _batches(artifact)})
        except Exception as error:  # the exporter, passes and the delegate raise many types
            raise BackendError(
                f"ExecuTorch cannot convert {artifact.path}: {first_line(error)}", "choose another backend"
            ) from error
        with target.open("wb") as file:
            program.write_to_file(file)

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        stage("import")
        pick_device(device, self.devices())
        with _quietly():
            runtime = _runtime()
            # Resetting is unsafe while programs are open, so it is done only if the count differs.
            if runtime._threadpool_get_thread_count() != threads:
                runtime._unsafe_reset_threadpool(threads)
            try:
                stage("load")
                program = _load(artifact.path, runtime)
                stage("compile")
                return _ExecuTorchSession(runtime, program, artifact)
            except RuntimeError as error:
                raise BackendError(
                    f"ExecuTorch cannot load {artifact.path}: {first_line(error)}", "convert the model again"
                ) from error


class _ExecuTorchSession(Session, LayerAudit, LayerProfile):
    def __init__(self, runtime: ModuleType, program: Any, artifact: Artifact) -> None:
        import torch

        self._runtime, self._program, self._artifact = runtime, program, artifact
        self._from_numpy, self._batch = torch.from_numpy, artifact.batch
        self._methods = {artifact.batch: program.load_method(_method_name(artifact.batch))}
        self._method = self._methods[artifact.batch]
        precision = self._method.method_meta().input_tensor_meta(0).dtype()
        self.facts = {
            "precision": "float32" if precision == _FLOAT else str(precision),
            "threads": str(runtime._threadpool_get_thread_count()),
        }

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        if len(images) != self._batch:
            return self._run_in_parts(images)
        # False skips the method's clone of its outputs: NumPy's copy is a microsecond faster.
        logits: NDArray[np.float32] = self._method((self._from_numpy(images),), False)[0].numpy().copy()
        return logits

    def _run_in_parts(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        import numpy as np

        parts, start = [], 0
        for size in _batches(self._artifact):
            while len(images) - start >= size:
                if size not in self._methods:
                    self._methods[size] = self._program.load_method(_method_name(size))
                parts.append(self._methods[size]((self._from_numpy(images[start : start + size]),))[0].numpy())
                start += size
        return np.concatenate(parts)

    def executed(self) -> tuple[Executed, ...]:
        import numpy as np

        (call,) = self._trace(np.zeros(self._artifact.input_shape, np.float32), 1)
        return _name_nodes([operator for operator, _ in call], cost_of(self._artifact.spec).layers)

    def profile(self, images: NDArray[np.float32], runs: int) -> tuple[NodeTime, ...]:
        calls = self._trace(images, runs + 1)[1:]
        layers = cost_of(self._artifact.spec).layers
        operators = [operator for operator, _ in calls[0]]
        if not _match_layers([operator for operator in operators if _WEIGHTED.match(operator)], layers):
            return ()
        medians = [median(times) for times in zip(*([time for _, time in call] for call in calls), strict=True)]
        return tuple(
            NodeTime(node.names, node.type, node.precision, median_ms)
            for node, median_ms in zip(_name_nodes(operators, layers), medians, strict=True)
        )

    def _trace(self, images: NDArray[np.float32], runs: int) -> list[list[tuple[str, float]]]:
        """Return the operators and their milliseconds in each of `runs` calls of a second program that records them."""
        with _quietly(), tempfile.TemporaryDirectory() as folder:
            from executorch.devtools.etdump.serialize import deserialize_from_etdump_flatcc

            program = _load(self._artifact.path, self._runtime, enable_etdump=True)
            method = program.load_method(_method_name(len(images)))
            for _ in range(runs):
                method((self._from_numpy(images),))
            path = Path(folder, "trace")
            program.write_etdump_result_to_file(str(path), str(Path(folder, "debug")))
            return _calls(deserialize_from_etdump_flatcc(path.read_bytes()))

    def close(self) -> None:
        self._methods.clear()
        self._method = self._program = None


def _batches(artifact: Artifact) -> list[int]:
    """Return the batch sizes of a program's methods, largest first. One method for any batch is up to 3 % slower."""
    return sorted({1, _BULK, artifact.batch}, reverse=True)


def _method_name(batch: int) -> str:
    return f"batch_{batch}"


def _calls(trace: Any) -> list[list[tuple[str, float]]]:
    """Return each call's operators with their milliseconds.

    XNNPACK truncates times to whole microseconds, so the mean loss of 0.5 us is added to each.
    """
    return [
        [
            (operator, (event.end_time - event.start_time) / 1e6 + 0.0005)
            for event in (entry.profile_event for entry in run.events)
            if (operator := _operator(event))
        ]
        for run in trace.run_data
        if run.name == "Execute"
    ]


def _operator(event: Any) -> str:
    """Return the name, without its number, of a delegated operator or of another kernel; empty for other events."""
    if event.delegate_debug_id_str:
        return str(event.delegate_debug_id_str).rpartition(" #")[0]
    return event.name if event.name and event.name.startswith("native_call_") else ""


def _name_nodes(operators: Sequence[str], layers: Sequence[Layer]) -> tuple[Executed, ...]:
    """Return the executed nodes, those with weights under the names of `layers`, which the delegate does not keep.

    If the order does not identify the layers but all ran in one precision, the first node gets all names.
    """
    nodes = [Executed((), operator, _precision(operator)) for operator in operators]
    weighted = [index for index, operator in enumerate(operators) if _WEIGHTED.match(operator)]
    names: list[tuple[str, ...]] = []
    if _match_layers([operators[index] for index in weighted], layers):
        names = [(layer.name,) for layer in layers]
    elif len({nodes[index].precision for index in weighted}) == 1:
        names = [tuple(layer.name for layer in layers)]
    for index, layer_names in zip(weighted, names, strict=False):
        nodes[index] = replace(nodes[index], names=layer_names)
    return tuple(nodes)


def _match_layers(weighted: Sequence[str], layers: Sequence[Layer]) -> bool:
    """Return whether the operators match `layers` in order: as many, each of the kernel that its layer uses."""
    kernels = [_KERNELS.get(layer.type, "IGEMM") for layer in layers]
    return [operator.rpartition(" ")[2] for operator in weighted] == kernels


def _precision(operator: str) -> str:
    if _INTEGERS.search(operator):
        return "int8"
    return "fp32" if "F32" in operator else "unknown"


def _load(path: Path, runtime: ModuleType, **options: bool) -> Any:
    """Load the program at `path` and verify its tables. Raises `RuntimeError` if it is not valid."""
    with path.open("rb") as file:
        identifier = file.read(8)[4:]
    if not identifier.isascii():  # the runtime prints it as text, and the process dies
        raise RuntimeError("it is not an ExecuTorch program")
    return runtime._load_program(str(path), program_verification=runtime.Verification.InternalConsistency, **options)


def _runtime() -> ModuleType:
    """Import the binding itself: `executorch.runtime` imports the converter too, 2.8 s and 137 MB more."""
    try:
        import torch  # noqa: F401  (loads the libraries that the binding needs)
        from executorch.extension.pybindings import _C
    except ImportError as error:
        raise BackendError(f"ExecuTorch cannot be imported ({error})", "run `pip install executorch`") from error
    module: ModuleType = _C
    return module


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Suppress ExecuTorch's logging, warnings and output to Python's standard error."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
