"""The conformance suite that every backend must pass."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar, get_args

import pytest

from mbbench import registry
from mbbench.artifacts.export import Exported, convert, export
from mbbench.backend import (
    EXPORTED_FORMATS,
    AheadOfTime,
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
    pick_device,
)
from mbbench.errors import BackendError
from mbbench.spec import ModelSpec, Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn


class BackendContract:
    """The conformance suite: a subclass that sets `name` tests that backend against the contract.

    `device` is a value of `--device`, by default the backend's first; the tests are skipped where it is missing.
    """

    name: ClassVar[str]
    device: ClassVar[str] = ""
    spec: ClassVar[ModelSpec] = ModelSpec(alpha=0.25, resolution=32, classes=10)
    tolerance: ClassVar[float] = 1e-4  # as a share of the largest logit

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend:
        """Return the backend; skip its tests, with the reason, if it cannot start here."""
        try:
            backend = registry.load(cls.name)
            pick_device(cls.device, backend.devices())
            if isinstance(backend, Converter):
                backend.tools()
        except BackendError as error:
            pytest.skip(f"{cls.name} cannot start here: {error}")
        return backend

    @pytest.fixture(scope="class")
    @classmethod
    def artifact(cls, backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Artifact]:
        """Yield an fp32 artifact of `spec` with random weights."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MBBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
            yield cls._artifact(backend, export(cls.spec, "contract", backend.formats[0], cls._module))

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls, backend: Backend, artifact: Artifact) -> Iterator[tuple[Session, list[Stage]]]:
        """Yield an open session, and the stages that opening it announced."""
        stages: list[Stage] = []
        with backend.open(artifact, cls.device, threads=1, stage=stages.append) as session:
            yield session, stages

    @classmethod
    def _artifact(cls, backend: Backend, exported: Exported, precision: Precision = "fp32") -> Artifact:
        """Return the artifact that `backend` opens, converted if it is a `Converter`."""
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
        """mbbench exports them, or the backend writes them itself."""
        written = [backend.makes] if isinstance(backend, Converter) else []
        written += [backend.builds] if isinstance(backend, AheadOfTime) else []
        for format in written:
            assert format and not set(format) & set("/\\"), f"{format!r} is not the suffix of a file"
        assert backend.formats
        assert backend.formats[0] in EXPORTED_FORMATS
        assert set(backend.formats) <= {*EXPORTED_FORMATS, *written}

    def test_versions_name_at_least_one_package(self, backend: Backend) -> None:
        versions = backend.versions()
        assert versions
        assert all(isinstance(value, str) and value for value in versions.values())

    def test_devices_have_names(self, backend: Backend) -> None:
        devices = backend.devices()
        assert devices
        assert all(isinstance(value, str) and value for value in devices.values())

    def test_precisions_are_known_and_include_fp32(self, backend: Backend) -> None:
        for device in backend.devices():
            precisions = backend.precisions(device)
            assert "fp32" in precisions
            assert precisions <= set(get_args(Precision))

    def test_stages_are_announced_once_and_in_order(self, opened: tuple[Session, list[Stage]]) -> None:
        assert opened[1] in (["import", "load", "compile"], ["import", "compile"])

    def test_facts_include_the_precision(self, opened: tuple[Session, list[Stage]]) -> None:
        facts = opened[0].facts
        assert facts["precision"]
        assert all(isinstance(value, str) for value in facts.values())

    @pytest.mark.parametrize("batch", [1, 3])
    def test_logits_match_pytorchs(self, opened: tuple[Session, list[Stage]], batch: int) -> None:
        import numpy as np
        import torch

        images = self._images(batch)
        with torch.inference_mode():
            expected = self._module()(torch.from_numpy(images)).numpy()
        logits = opened[0].run(images)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, rtol=0, atol=self.tolerance * np.abs(expected).max())

    def test_every_claimed_precision_is_executed(
        self, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Check that logits are close to fp32's, and what precision a `LayerAudit` reports."""
        import numpy as np
        import torch

        from mbbench.analysis.executed import audit, describe_fallback
        from mbbench.compress import quantize
        from mbbench.graphs.onnx import to_onnx
        from mbbench.models import fold_batch_norm
        from mbbench.models.cost import cost_of

        monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
        images = self._images(8)
        reference = self._module()(torch.from_numpy(images)).detach().numpy()
        device = pick_device(self.device, backend.devices())
        native = backend.native(device)
        assert "fp32" in native
        graph = to_onnx(fold_batch_norm(self._module()), self.spec.resolution)
        for precision, dialect in native.items():
            artifact = self._artifact(backend, self._exported(backend.formats[0], precision, dialect), precision)
            with backend.open(artifact, device, threads=1, stage=lambda _: None) as session:
                logits = session.run(images)
                assert np.abs(logits - reference).mean() < 0.2 * np.abs(reference).mean(), precision
                if isinstance(session, LayerAudit):
                    executed = audit(session.executed(), cost_of(self.spec).layers)
                    fp32_nodes = quantize.fp32_nodes(graph, dialect)
                    assert describe_fallback(executed, precision, fp32_nodes) is None, precision

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

    def test_profiled_nodes_are_executed_nodes(self, opened: tuple[Session, list[Stage]]) -> None:
        """Ignore nodes without a name, which cannot be traced to the artifact, and those that only move tensors."""
        from mbbench.analysis.executed import split_moves

        session, images = opened[0], self._images(1)
        if not isinstance(session, LayerProfile) or not isinstance(session, LayerAudit):
            pytest.skip("the session does not report the time of its nodes")
        calls_ms = []
        for _ in range(20):
            start = perf_counter()
            session.run(images)
            calls_ms.append((perf_counter() - start) * 1e3)
        times = session.profile(images, 20)
        executed = {(node.names, node.type, node.precision) for node in session.executed()}
        named = {(node.names, node.type, node.precision) for node in split_moves(times)[1] if node.names}
        assert named
        assert named <= executed
        assert all(0 < node.median_ms < math.inf for node in times)
        assert 1 / 20 < sum(node.median_ms for node in times) / min(calls_ms) < 20

    def test_device_times_have_positive_compute_times(self, opened: tuple[Session, list[Stage]]) -> None:
        session = opened[0]
        if not isinstance(session, OnDevice):
            pytest.skip("the session does not run on a device with its own clock and memory")
        calls = session.device_times(self._images(1), 5)
        assert len(calls) == 5
        assert all(call.compute_ms > 0 and min(call.to_device_ms, call.to_host_ms) >= 0 for call in calls)

    def test_logits_stay_valid_after_the_next_call(self, opened: tuple[Session, list[Stage]]) -> None:
        import numpy as np

        first = opened[0].run(self._images(1))
        copy = first.copy()
        second = opened[0].run(self._images(1, seed=1))
        np.testing.assert_array_equal(first, copy)
        assert not np.array_equal(first, second)

    def test_images_changed_in_place_change_the_logits(self, opened: tuple[Session, list[Stage]]) -> None:
        import numpy as np

        images = self._images(1)
        first = opened[0].run(images)
        images *= -1
        assert not np.array_equal(first, opened[0].run(images))

    def test_an_unknown_device_is_refused_with_the_list_of_devices(self, backend: Backend, artifact: Artifact) -> None:
        with pytest.raises(BackendError) as caught:
            backend.open(artifact, "no such device", threads=1, stage=lambda _: None)
        assert next(iter(backend.devices())) in caught.value.remedy

    def test_a_damaged_artifact_is_refused_in_one_line(
        self, backend: Backend, artifact: Artifact, tmp_path: Path
    ) -> None:
        damaged = tmp_path / artifact.path.name
        damaged.write_bytes(b"damaged")
        with pytest.raises(BackendError) as caught:
            backend.open(replace(artifact, path=damaged), self.device, threads=1, stage=lambda _: None)
        assert "\n" not in str(caught.value)
