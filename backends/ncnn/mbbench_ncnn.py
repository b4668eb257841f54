"""ncnn as an mbbench backend."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
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

_DEVICES = ("cpu",)
_PARAM = "model.param"  # in the archive after the weights
# By default ncnn computes in fp16 on ARM CPUs that can, and stores the classifier's weights in fp16 on x86.
_NARROW_OPTIONS = ("use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage")
_AS_STORED = 1  # by default `Extractor.extract` converts int8 to float


class NcnnBackend(Backend, Converter):
    """ncnn on the CPU, from a single file that holds both of ncnn's files.

    The file starts with the weights (.bin), which ncnn reads from the start of a file. A zip archive with the network
    (.param) follows, since the directory of an archive is at the end of a file. ncnn therefore reads the weights from
    disk itself, and no second copy of them adds to the measured memory.
    """

    formats: ClassVar[tuple[Format, ...]] = ("onnx",)
    makes: ClassVar[Format] = "ncnn"

    def versions(self) -> Mapping[str, str]:
        return {"ncnn": installed_version("ncnn")}

    def tools(self) -> Mapping[str, str]:
        return {"mbbench-ncnn": installed_version("mbbench-ncnn", "run `pip install -e backends/ncnn`")}

    def devices(self) -> Mapping[str, str]:
        self.versions()
        return dict.fromkeys(_DEVICES, fingerprint().cpu)

    def precisions(self, device: str) -> frozenset[Precision]:
        return frozenset({"fp32", "int8"})

    def dialects(self, device: str) -> Mapping[Precision, Dialect]:
        return {"fp32": "fp32", "int8": "s8s8f"}

    def convert(self, artifact: Artifact, target: Path) -> None:
        import onnx
        from mbbench_ncnn_writer import write

        try:
            param, weights = write(onnx.load(artifact.path))
        except ValueError as error:
            raise BackendError(
                f"{artifact.path} cannot be converted to ncnn: {error}", "choose another backend"
            ) from error
        target.write_bytes(weights)
        with zipfile.ZipFile(target, "a") as archive:
            archive.writestr(zipfile.ZipInfo(_PARAM), param)  # has a constant date, unlike a plain name
            archive.comment = str(len(weights)).encode()

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        stage("import")
        ncnn = _ncnn()
        pick_device(device, _DEVICES)
        stage("compile")  # ncnn reads and packs each layer's weights in one step
        try:
            with zipfile.ZipFile(artifact.path) as archive:
                param = archive.read(_PARAM).decode()
                if archive.getinfo(_PARAM).header_offset != int(archive.comment):
                    raise ValueError("weights are missing")
        except Exception as error:  # a damaged archive raises any of six types
            raise BackendError(
                f"{artifact.path} is not a valid ncnn file: {error}", "export the model again"
            ) from error
        net = ncnn.Net()
        net.opt.num_threads = threads
        net.opt.use_vulkan_compute = False
        for name in _NARROW_OPTIONS:
            setattr(net.opt, name, False)
        with silent_stderr():  # ncnn prints there why it rejects a file
            failed = net.load_param_mem(param) or net.load_model(str(artifact.path))
        if failed:
            raise BackendError(f"ncnn cannot load {artifact.path}", "export the model again")
        return _NcnnSession(ncnn, net, artifact)


class _NcnnSession(Session, LayerAudit):
    """A session that runs the images of a batch one by one; ncnn's own batches are also a loop, and no faster."""

    def __init__(self, ncnn: ModuleType, net: Any, artifact: Artifact) -> None:
        import numpy as np

        self._array, self._mat, self._net = np.array, ncnn.Mat, net
        (self._input,), (self._output,) = net.input_indexes(), net.output_indexes()
        self._bound: NDArray[np.float32] | None = None
        self._images: list[Any] = []
        self._example = np.zeros(artifact.input_shape[1:], np.float32)
        self.facts = {
            "precision": ", ".join(name for name in _NARROW_OPTIONS if getattr(net.opt, name)) or "float32",
            "threads": str(net.opt.num_threads),
        }

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        if images is not self._bound:  # matrices share the array's memory, so a bound array may change in place
            self._images = [self._mat(image) for image in images]
            self._bound = images
        # Copying through the buffer protocol takes 0.7 us, ncnn's `Mat.numpy` 3 us.
        logits: NDArray[np.float32] = self._array([self._logits(image) for image in self._images])
        return logits

    def _logits(self, image: Any) -> Any:
        logits = self._mat()
        extractor = self._net.create_extractor()
        extractor.input(self._input, image)
        if extractor.extract(self._output, logits):
            raise BackendError("ncnn failed to run the model", "free memory or try another version of ncnn")
        return logits

    def executed(self) -> tuple[Executed, ...]:
        """Return the layers, as int8 where their input is int8: for such inputs ncnn has only integer kernels."""
        extractor = self._net.create_extractor()
        extractor.input(self._input, self._mat(self._example))

        def precision(blob: int) -> str:
            tensor = self._mat()
            extractor.extract(blob, tensor, _AS_STORED)
            return "int8" if tensor.elembits() == 8 else "fp32"

        return tuple(
            Executed((layer.name,), layer.type, precision(layer.bottoms[0]))
            for layer in self._net.layers()
            if layer.bottoms
        )

    def close(self) -> None:
        self._images, self._bound = [], None
        self._net.clear()


def _ncnn() -> ModuleType:
    """Import ncnn. Raises `BackendError` if the import fails."""
    try:
        import ncnn
    except ImportError as error:
        raise BackendError(f"ncnn cannot be imported ({error})", "run `pip install ncnn`") from error
    module: ModuleType = ncnn
    return module
