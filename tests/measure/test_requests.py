from __future__ import annotations

import os
import threading
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from mbbench.backend import Artifact, Session, Stage
from mbbench.errors import BackendError
from mbbench.measure.requests import SessionRequests, calling_from, open_requests
from mbbench.spec import ModelSpec
from mbbench.testing import FakeBackend

IMAGE = np.zeros((1, 3, 32, 32), np.float32)


class Gated(Session):
    """Answers its own number once the gate opens."""

    def __init__(self, number: int, gate: threading.Event) -> None:
        self.facts = {"precision": "float32", "threads": "1"}
        self.closed = False
        self._number, self._gate = number, gate

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self._gate.wait(10)
        return np.full((len(images), 2), self._number, np.float32)

    def close(self) -> None:
        self.closed = True


class Failing(Session):
    facts = {"precision": "float32"}  # noqa: RUF012

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        raise RuntimeError("no memory")


def test_every_session_works_at_once_and_each_request_is_answered_once() -> None:
    gate = threading.Event()
    sessions = [Gated(number, gate) for number in range(2)]
    answers: list[float] = []
    with SessionRequests(sessions, threads=1) as requests:
        for _ in range(4):  # two under way, two that wait
            requests.submit(IMAGE, lambda logits: answers.append(float(logits[0, 0])))
        assert answers == []
        gate.set()
        requests.wait()
        assert len(answers) == 4
        assert requests.facts == {"precision": "float32", "threads": "2", "streams": "2", "requests": "4"}
    assert [session.closed for session in sessions] == [True, True]


def test_submitting_blocks_while_all_are_busy() -> None:
    gate = threading.Event()
    with SessionRequests([Gated(0, gate)], threads=1) as requests:
        requests.submit(IMAGE)
        requests.submit(IMAGE)
        third = threading.Thread(target=requests.submit, args=(IMAGE,))
        third.start()
        third.join(0.05)
        assert third.is_alive()
        gate.set()
        third.join(10)
        assert not third.is_alive()


def test_a_request_that_fails_is_told_once_all_have_ended() -> None:
    with SessionRequests([Failing()], threads=1) as requests:
        requests.submit(IMAGE)
        with pytest.raises(BackendError, match="a request failed: no memory; try fewer streams"):
            requests.wait()
        requests.wait()


class Counting(FakeBackend):
    """Notes the threads of every session, and fails to open the session number `limit`."""

    def __init__(self, limit: int = 99) -> None:
        super().__init__()
        self.opened: list[Gated] = []
        self.threads: list[int] = []
        self._limit = limit

    def open(self, artifact: Artifact, device: str, *, threads: int, stage: Callable[[Stage], None]) -> Session:
        if len(self.opened) == self._limit:
            raise BackendError("no memory", "free some")
        self.threads.append(threads)
        self.opened.append(Gated(0, threading.Event()))
        return self.opened[-1]


@pytest.fixture
def artifact(tmp_path: os.PathLike[str]) -> Artifact:
    return Artifact(tmp_path, "onnx", "fp32", "fp32", ModelSpec(), 1, "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("threads", "streams", "each"), [(4, None, [1, 1, 1, 1]), (4, 2, [2, 2]), (1, 3, [1, 1, 1]), (5, 2, [2, 2])]
)
def test_the_threads_are_shared_out_among_the_streams(
    artifact: Artifact, threads: int, streams: int | None, each: list[int]
) -> None:
    backend = Counting()
    with open_requests(backend, artifact, "", threads=threads, streams=streams) as requests:
        assert backend.threads == each
        assert requests.facts["streams"] == str(len(each))


def test_sessions_that_were_open_are_closed_when_one_cannot_be(artifact: Artifact) -> None:
    backend = Counting(limit=1)
    with pytest.raises(BackendError, match="no memory"):
        open_requests(backend, artifact, "", threads=2, streams=None)
    assert [session.closed for session in backend.opened] == [True]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be pinned here")
def test_only_the_calling_thread_moves_and_it_comes_back() -> None:
    before = os.sched_getaffinity(0)
    target = {max(before)}
    other = threading.Event()
    seen: list[set[int]] = []

    def look() -> None:
        other.wait(10)
        seen.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=look)
    thread.start()
    with calling_from(target):
        assert os.sched_getaffinity(0) == target
        other.set()
        thread.join()
    assert (seen, os.sched_getaffinity(0)) == ([before], before)
    with calling_from(()):
        assert os.sched_getaffinity(0) == before
