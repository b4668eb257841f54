"""For tests: a backend with scripted latencies, and the conformance suite that every backend must pass.

    from mbbench.testing import BackendContract

    class TestMine(BackendContract):
        name = "mine"

pytest then runs every test of the suite against the installed backend of that name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar, get_args

import pytest

from mbbench import registry
from mbbench.artifacts.export import Exported, convert, export
from mbbench.backend import (
    Artifact,
    Backend,
    Converter,
    Dialect,
    Format,
    LayerAudit,
    LayerProfile,
    OnDevice,
    Session,
    Stage,
)
from mbbench.errors import BackendError
from mbbench.spec import ModelSpec, Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn


class FakeClock:
    """A clock in nanoseconds that only moves when told to."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


class FakeSession(Session):
    """Every call takes the next of `latencies_ms` on `clock`, and the last for ever after; logits are zeros."""

    def __init__(self, latencies_ms: Iterable[float], clock: FakeClock, classes: int = 10) -> None:
        self.facts: Mapping[str, str] = {"precision": "float32"}
        self._latencies = iter(latencies_ms)
        self._latency = 0.0
        self._clock, self._classes = clock, classes

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        import numpy as np

        self._latency = next(self._latencies, self._latency)
        self._clock.now_ns += round(self._latency * 1e6)
        return np.zeros((len(images), self._classes), np.float32)


class FakeBackend(Backend):
    """Opens anything as a `FakeSession`."""

    formats: ClassVar[tuple[Format, ...]] = ("onnx",)

    def __init__(self, latencies_ms: Iterable[float] = (1.0,), clock: FakeClock | None = None) -> None:
        self._latencies, self._clock = latencies_ms, clock or FakeClock()

    def versions(self) -> Mapping[str, str]:
        return {"fake": "1"}

    def devices(self) -> Mapping[str, str]:
        return {"cpu": "a fake"}

    def precisions(self, device: str) -> frozenset[Precision]:
        return frozenset({"fp32"})

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        for name in get_args(Stage):
            stage(name)
        return FakeSession(self._latencies, self._clock, artifact.spec.classes)


class BackendContract:
    """Subclass it, give `name`, and pytest holds the backend to the contract of `mbbench.backend`."""

    name: ClassVar[str]
    spec: ClassVar[ModelSpec] = ModelSpec(alpha=0.25, resolution=32, classes=10)
    tolerance: ClassVar[float] = 1e-4  # of the largest logit

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend:
        try:
            backend = registry.load(cls.name)
            backend.devices()
            if isinstance(backend, Converter):
                backend.tools()
        except BackendError as error:
            pytest.skip(f"{cls.name} cannot start here: {error}")
        return backend

    @pytest.fixture(scope="class")
    @classmethod
    def artifact(cls, backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Artifact]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MBBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
            yield cls._for(backend, export(cls.spec, "contract", backend.formats[0], cls._module))

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls, backend: Backend, artifact: Artifact) -> Iterator[tuple[Session, list[Stage]]]:
        stages: list[Stage] = []
        with backend.open(artifact, "", threads=1, stage=stages.append) as session:
            yield session, stages

    @classmethod
    def _for(cls, backend: Backend, exported: Exported, precision: Precision = "fp32") -> Artifact:
        """The artifact that `backend` opens, converted if need be."""
        if isinstance(backend, Converter):
            exported = convert(exported.artifact(cls.spec, 1, precision), backend)
        return exported.artifact(cls.spec, 1, precision)

    @classmethod
    def _module(cls) -> nn.Module:
        from mbbench.models import build, randomize

        module = build(cls.spec)
        randomize(module, seed=0)
        return module

    def _images(self, batch: int, seed: int = 0) -> NDArray[np.float32]:
        import numpy as np

        shape = (batch, 3, self.spec.resolution, self.spec.resolution)
        return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)

    def test_formats_are_known(self, backend: Backend) -> None:
        assert backend.formats
        assert set(backend.formats) <= set(get_args(Format))

    def test_versions_name_at_least_one_package(self, backend: Backend) -> None:
        versions = backend.versions()
        assert versions
        assert all(isinstance(value, str) and value for value in versions.values())

    def test_devices_have_names(self, backend: Backend) -> None:
        devices = backend.devices()
        assert devices
        assert all(isinstance(value, str) and value for value in devices.values())

    def test_precisions_are_known_and_hold_fp32(self, backend: Backend) -> None:
        for device in backend.devices():
            precisions = backend.precisions(device)
            assert "fp32" in precisions
            assert precisions <= set(get_args(Precision))

    def test_stages_are_announced_once_and_in_order(self, opened: tuple[Session, list[Stage]]) -> None:
        assert opened[1] in (["import", "load", "compile"], ["import", "compile"])

    def test_facts_tell_the_precision(self, opened: tuple[Session, list[Stage]]) -> None:
        facts = opened[0].facts
        assert facts["precision"]
        assert all(isinstance(value, str) for value in facts.values())

    @pytest.mark.parametrize("batch", [1, 3])
    def test_logits_are_pytorchs(self, opened: tuple[Session, list[Stage]], batch: int) -> None:
        import numpy as np
        import torch

        images = self._images(batch)
        with torch.inference_mode():
            expected = self._module()(torch.from_numpy(images)).numpy()
        logits = opened[0].run(images)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, rtol=0, atol=self.tolerance * np.abs(expected).max())

    def test_every_precision_it_claims_is_executed(
        self, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of the first device: near fp32's logits, and in that precision by the backend's account, if it gives one."""
        import numpy as np
        import torch

        from mbbench.analysis.executed import audit, fell_back
        from mbbench.compress import quantize
        from mbbench.graphs.onnx import to_onnx
        from mbbench.models import fold_batch_norm
        from mbbench.models.cost import cost_of

        monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
        images = self._images(8)
        expected = self._module()(torch.from_numpy(images)).detach().numpy()
        device = next(iter(backend.devices()))
        native = backend.native(device)
        assert "fp32" in native
        graph = to_onnx(fold_batch_norm(self._module()), self.spec.resolution)
        for precision, dialect in native.items():
            artifact = self._for(backend, self._exported(backend.formats[0], precision, dialect), precision)
            with backend.open(artifact, device, threads=1, stage=lambda _: None) as session:
                logits = session.run(images)
                assert np.abs(logits - expected).mean() < 0.2 * np.abs(expected).mean(), precision
                if isinstance(session, LayerAudit):
                    found = audit(session.executed(), cost_of(self.spec).layers)
                    assert fell_back(found, precision, quantize.floats(graph, dialect)) is None, precision

    def _exported(self, format: Format, precision: Precision, dialect: Dialect) -> Exported:
        from mbbench.artifacts.export import export_quantized
        from mbbench.compress import calibrate, quantize
        from mbbench.graphs.onnx import to_onnx
        from mbbench.models import fold_batch_norm

        if precision != "int8":
            return export(self.spec, "contract", format, self._module, dialect)
        graph = to_onnx(fold_batch_norm(self._module()), self.spec.resolution)
        ranges = calibrate.ranges(calibrate.statistics(graph, self._images(8)), "minmax")
        written = quantize.write(graph, ranges, dialect)
        return export_quantized(lambda: written, "contract", format, dialect)

    def test_a_profile_times_the_nodes_that_are_executed(self, opened: tuple[Session, list[Stage]]) -> None:
        """Nodes without a name cannot be traced to the artifact; those that move tensors may have any name."""
        from mbbench.analysis.executed import sort_out

        session, images = opened[0], self._images(1)
        if not isinstance(session, LayerProfile) or not isinstance(session, LayerAudit):
            pytest.skip("the session does not tell how long its nodes take")
        calls_ms = []
        for _ in range(20):
            start = perf_counter()
            session.run(images)
            calls_ms.append((perf_counter() - start) * 1e3)
        times = session.profile(images, 20)
        executed = {(node.names, node.type, node.precision) for node in session.executed()}
        named = {(node.names, node.type, node.precision) for node in sort_out(times)[1] if node.names}
        assert named
        assert named <= executed
        assert all(0 < node.median_ms < math.inf for node in times)
        assert 1 / 20 < sum(node.median_ms for node in times) / min(calls_ms) < 20

    def test_a_device_of_its_own_times_the_parts_of_a_call(self, opened: tuple[Session, list[Stage]]) -> None:
        session = opened[0]
        if not isinstance(session, OnDevice):
            pytest.skip("the session names no device of its own")
        calls = session.device_times(self._images(1), 5)
        assert len(calls) == 5
        assert all(call.compute_ms > 0 and min(call.to_device_ms, call.to_host_ms) >= 0 for call in calls)

    def test_a_result_outlives_the_next_call(self, opened: tuple[Session, list[Stage]]) -> None:
        import numpy as np

        first = opened[0].run(self._images(1))
        kept = first.copy()
        second = opened[0].run(self._images(1, seed=1))
        np.testing.assert_array_equal(first, kept)
        assert not np.array_equal(first, second)

    def test_an_array_changed_in_place_gives_other_logits(self, opened: tuple[Session, list[Stage]]) -> None:
        import numpy as np

        images = self._images(1)
        first = opened[0].run(images)
        images *= -1
        assert not np.array_equal(first, opened[0].run(images))

    def test_an_unknown_device_is_refused_with_the_list(self, backend: Backend, artifact: Artifact) -> None:
        with pytest.raises(BackendError) as caught:
            backend.open(artifact, "no such device", threads=1, stage=lambda _: None)
        assert next(iter(backend.devices())) in caught.value.remedy

    def test_a_damaged_artifact_is_refused_in_one_line(
        self, backend: Backend, artifact: Artifact, tmp_path: Path
    ) -> None:
        damaged = tmp_path / artifact.path.name
        damaged.write_bytes(b"damaged")
        with pytest.raises(BackendError) as caught:
            backend.open(replace(artifact, path=damaged), "", threads=1, stage=lambda _: None)
        assert "\n" not in str(caught.value)
