"""LiteRT as an mbbench backend."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mbbench.backend import (
    Artifact,
    Backend,
    Converter,
    Dialect,
    Executed,
    Format,
    LayerAudit,
    Session,
    Stage,
    installed_version,
    pick_device,
    silent_stderr,
)
from mbbench.errors import BackendError
from mbbench.machine import fingerprint
from mbbench.spec import Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_RUNTIME = "ai-edge-litert"
_DELEGATE = "DELEGATE"  # the interpreter's name for a node that replaces those a delegate took


class LiteRtBackend(Backend, Converter):
    """LiteRT on the CPU, with XNNPACK."""

    formats: ClassVar[tuple[Format, ...]] = ("onnx",)
    makes: ClassVar[Format] = "tflite"

    def versions(self) -> Mapping[str, str]:
        return {_RUNTIME: installed_version(_RUNTIME)}

    def tools(self) -> Mapping[str, str]:
        converter = {
            name: installed_version(name, "run `pip install litert-torch`")
            for name in ("litert-torch", "litert-converter")
        }
        backend = installed_version("mbbench-litert", "run `pip install -e backends/litert`")
        return {**converter, **self.versions(), "mbbench-litert": backend}

    def devices(self) -> Mapping[str, str]:
        return {"cpu": fingerprint().cpu}

    def precisions(self, device: str) -> frozenset[Precision]:
        return frozenset({"fp32", "int8"})

    def dialects(self, device: str) -> Mapping[Precision, Dialect]:
        return {"fp32": "fp32", "int8": "u8s8"}

    def convert(self, artifact: Artifact, target: Path) -> None:
        """Convert in a separate process: the converter loads JAX, and its C++ code logs past Python's streams."""
        self.tools()
        command = [sys.executable, "-P", "-m", "mbbench_litert_convert", str(artifact.path), str(target)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        if done.returncode != 0:
            raise BackendError(
                f"LiteRT's converter cannot convert {artifact.path}: {_last_line(done.stderr)}",
                "try another version of litert-torch or another backend",
            )

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        stage("import")
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise BackendError(f"LiteRT cannot be imported ({error})", f"run `pip install {_RUNTIME}`") from error
        pick_device(device, self.devices())
        try:
            with silent_stderr():  # LiteRT prints a banner there, and has no setting against it
                stage("load")
                interpreter = Interpreter(str(artifact.path), num_threads=threads)
                stage("compile")
                interpreter.allocate_tensors()  # XNNPACK, on by default, takes the operators here
                return _LiteRtSession(interpreter, artifact.batch)
        except (ValueError, RuntimeError) as error:
            raise BackendError(
                f"LiteRT cannot open {artifact.path}: {_last_line(str(error))}", "convert the model again"
            ) from error


class _LiteRtSession(Session, LayerAudit):
    def __init__(self, interpreter: Any, batch: int) -> None:
        self._interpreter = interpreter
        (images,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()
        self._input, self._output = images["index"], logits["index"]
        self._shape: tuple[int, ...] = tuple(images["shape"].tolist())
        self._resizable = True
        self._resize(batch)
        operators = interpreter._get_ops_details()
        self.facts = {
            "precision": "int8" if any(map(_is_integer, operators)) else "float32",
            "delegate": "XNNPACK" if _is_delegated(operators, self._input, self._output) else "XNNPACK in part",
            "batch": str(self._shape[0]),
        }

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        if images.shape != self._shape and not self._resize(len(images)):
            return self._run_one_by_one(images)
        self._interpreter.set_tensor(self._input, images)
        self._interpreter.invoke()
        logits: NDArray[np.float32] = self._interpreter.get_tensor(self._output)  # a copy
        return logits

    def _run_one_by_one(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        import numpy as np

        return np.concatenate([self.run(image) for image in images[:, None]])

    def _resize(self, batch: int) -> bool:
        """Resize the input to `batch` images; return False if the file fixes another batch size."""
        shape = (batch, *self._shape[1:])
        if shape != self._shape and self._resizable:
            try:
                self._allocate(shape)
            except RuntimeError:
                self._resizable = False
                self._allocate(self._shape)
            else:
                self._shape = shape
        return shape == self._shape

    def _allocate(self, shape: tuple[int, ...]) -> None:
        self._interpreter.resize_tensor_input(self._input, shape)
        self._interpreter.allocate_tensors()

    def executed(self) -> tuple[Executed, ...]:
        """Return the file's operators under the names of their outputs; those that a delegate took stay listed."""
        names = {tensor["index"]: tensor["name"] for tensor in self._interpreter.get_tensor_details()}
        return tuple(
            Executed((names[operator["outputs"][0]],), operator["op_name"], "int8" if _is_integer(operator) else "fp32")
            for operator in self._interpreter._get_ops_details()
            if operator["op_name"] != _DELEGATE
        )

    def close(self) -> None:
        del self._interpreter


def _is_integer(operator: Mapping[str, Any]) -> bool:
    """Return whether an operand of `operator` is int8. If its activations are float, they are rounded when it runs."""
    import numpy as np

    return np.int8 in operator["operand_types"]


def _is_delegated(operators: Sequence[Mapping[str, Any]], images: int, logits: int) -> bool:
    """Return whether a single delegate node leads from the images to the logits."""
    nodes = [operator for operator in operators if operator["op_name"] == _DELEGATE]
    return len(nodes) == 1 and images in nodes[0]["inputs"] and logits in nodes[0]["outputs"]


def _last_line(text: str) -> str:
    """Return the last line that is not blank."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
