from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from mbbench.data import feed
from mbbench.data.feed import batches, to_float
from mbbench.families import Family
from mbbench.models import default_preprocessing
from mbbench.spec import Preprocessing


@pytest.mark.parametrize("family", ["mobilenet_v1", "vgg16"])
def test_to_float_normalizes_each_channel(family: Family) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), np.uint8)
    normal = default_preprocessing(family)
    expected = (images.astype(np.float64) / 255 - normal.mean) / normal.std
    planes = to_float(images, normal)
    assert planes.dtype == np.float32
    assert planes.flags.c_contiguous
    np.testing.assert_allclose(planes, expected.transpose(0, 3, 1, 2), rtol=0, atol=5e-7)


def test_mobilenet_pixels_range_from_minus_one_to_one() -> None:
    extremes = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1).repeat(3, axis=3)
    assert to_float(extremes, default_preprocessing("mobilenet_v1")).reshape(2, 3).tolist() == [[-1] * 3, [1] * 3]


def test_the_result_for_an_image_does_not_depend_on_its_batch() -> None:
    images = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3), np.uint8)
    images.setflags(write=False)  # like a memory-mapped file
    normal = default_preprocessing("vgg16")
    alone = np.concatenate([to_float(images[i : i + 1], normal) for i in range(4)])
    assert np.array_equal(to_float(images, normal), alone)


def test_batches_have_one_shape_and_the_number_of_their_images() -> None:
    images = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3), np.uint8)
    normal = default_preprocessing("vgg16")
    pairs = list(batches(images, normal, 2))
    assert [(batch.shape, count) for batch, count in pairs] == [((2, 3, 8, 8), 2), ((2, 3, 8, 8), 2), ((2, 3, 8, 8), 1)]
    whole = np.concatenate([batch[:count] for batch, count in pairs])
    assert np.array_equal(whole, to_float(images, normal))


def test_a_thread_on_spare_cpus_prepares_the_next_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, set[int]]] = []  # thread and its CPUs

    def record(images: np.ndarray, normal: object) -> np.ndarray:
        calls.append((threading.get_ident(), os.sched_getaffinity(0)))
        return images

    monkeypatch.setattr(feed, "to_float", record)
    allowed = os.sched_getaffinity(0)
    spare = {min(allowed)}
    generator = batches(np.zeros((3, 4, 4, 3), np.uint8), default_preprocessing("vgg16"), 1, spare)
    next(generator)
    next(generator)  # the thread is already preparing the third batch
    generator.close()
    assert all(cpus == spare for _, cpus in calls) and len({thread for thread, _ in calls}) == 1
    assert threading.get_ident() not in dict(calls) and os.sched_getaffinity(0) == allowed


def test_the_measuring_process_loads_only_numpy() -> None:
    code = (
        "import sys, numpy as np; from mbbench.data.feed import to_float; from mbbench.spec import Preprocessing;"
        "to_float(np.zeros((1, 2, 2, 3), np.uint8), Preprocessing());"
        "print([name for name in ('torch', 'PIL', 'sklearn', 'scipy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_bgr_reverses_the_planes_but_not_the_mean_and_std() -> None:
    images = np.array([[[[10, 20, 30]]]], np.uint8)
    preprocessing = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2))
    rgb = to_float(images, preprocessing).reshape(3)
    bgr = to_float(images, replace(preprocessing, channels="bgr"))
    expected = [(10 / 255 - 0.1) / 0.5, (20 / 255 - 0.2) / 0.25, (30 / 255 - 0.3) / 0.2]
    np.testing.assert_allclose(rgb, expected, rtol=1e-5)
    assert bgr.flags.c_contiguous
    assert bgr.reshape(3).tolist() == rgb[::-1].tolist()
