from __future__ import annotations

import os
import threading
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from mbbench.backend import Artifact, Session, Stage
from mbbench.errors import BackendError
from mbbench.measure.requests import SessionRequests, open_requests, pin_calling_thread
from mbbench.spec import ModelSpec
from mbbench.testing import FakeBackend

IMAGE = np.zeros((1, 3, 32, 32), np.float32)


class GatedSession(Session):
    """A session that returns its number as every logit once the gate is open."""

    def __init__(self, number: int, gate: threading.Event) -> None:
        self.facts = {"precision": "float32", "threads": "1"}
        self.closed = False
        self._number, self._gate = number, gate

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self._gate.wait(10)
        return np.full((len(images), 2), self._number, np.float32)

    def close(self) -> None:
        self.closed = True


class FailingSession(Session):
    facts = {"precision": "float32"}  # noqa: RUF012

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        raise RuntimeError("no memory")


def test_sessions_run_concurrently_and_each_request_is_answered_once() -> None:
    gate = threading.Event()
    sessions = [GatedSession(number, gate) for number in range(2)]
    answers: list[float] = []
    with SessionRequests(sessions, threads=1) as requests:
        for _ in range(4):  # two running, two waiting
            requests.submit(IMAGE, lambda logits: answers.append(float(logits[0, 0])))
        assert answers == []
        gate.set()
        requests.wait()
        assert len(answers) == 4
        assert requests.facts == {"precision": "float32", "threads": "2", "streams": "2", "requests": "4"}
    assert [session.closed for session in sessions] == [True, True]


def test_submit_blocks_while_all_requests_are_in_use() -> None:
    gate = threading.Event()
    with SessionRequests([GatedSession(0, gate)], threads=1) as requests:
        requests.submit(IMAGE)
        requests.submit(IMAGE)
        third = threading.Thread(target=requests.submit, args=(IMAGE,))
        third.start()
        third.join(0.05)
        assert third.is_alive()
        gate.set()
        third.join(10)
        assert not third.is_alive()


def test_wait_raises_the_error_of_a_failed_request_once() -> None:
    with SessionRequests([FailingSession()], threads=1) as requests:
        requests.submit(IMAGE)
        with pytest.raises(BackendError, match="a request failed: no memory; try fewer streams"):
            requests.wait()
        requests.wait()


class RecordingBackend(FakeBackend):
    """A backend that records the threads of each session and cannot open more than `limit` sessions."""

    def __init__(self, limit: int = 99) -> None:
        super().__init__()
        self.opened: list[GatedSession] = []
        self.threads: list[int] = []
        self._limit = limit

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        if len(self.opened) == self._limit:
            raise BackendError("no memory", "free memory")
        self.threads.append(threads)
        self.opened.append(GatedSession(0, threading.Event()))
        return self.opened[-1]


@pytest.fixture
def artifact(tmp_path: os.PathLike[str]) -> Artifact:
    return Artifact(tmp_path, "onnx", "fp32", "fp32", ModelSpec(), 1, "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("threads", "streams", "per_session"), [(4, None, [1, 1, 1, 1]), (4, 2, [2, 2]), (1, 3, [1, 1, 1]), (5, 2, [2, 2])]
)
def test_threads_are_divided_among_the_streams(
    artifact: Artifact, threads: int, streams: int | None, per_session: list[int]
) -> None:
    backend = RecordingBackend()
    with open_requests(backend, artifact, "", threads=threads, streams=streams) as requests:
        assert backend.threads == per_session
        assert requests.facts["streams"] == str(len(per_session))


def test_open_sessions_are_closed_if_another_cannot_be_opened(artifact: Artifact) -> None:
    backend = RecordingBackend(limit=1)
    with pytest.raises(BackendError, match="no memory"):
        open_requests(backend, artifact, "", threads=2, streams=None)
    assert [session.closed for session in backend.opened] == [True]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be pinned here")
def test_only_the_calling_thread_moves_and_it_moves_back() -> None:
    before = os.sched_getaffinity(0)
    target = {max(before)}
    pinned = threading.Event()
    seen: list[set[int]] = []

    def record_affinity() -> None:
        pinned.wait(10)
        seen.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=record_affinity)
    thread.start()
    with pin_calling_thread(target):
        assert os.sched_getaffinity(0) == target
        pinned.set()
        thread.join()
    assert (seen, os.sched_getaffinity(0)) == ([before], before)
    with pin_calling_thread(()):
        assert os.sched_getaffinity(0) == before
