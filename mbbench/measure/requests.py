"""Concurrent requests for runtimes that leave them to their callers: one session per stream, each in a thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import TYPE_CHECKING

from mbbench.backend import Artifact, Backend, Requests, Session, Streams
from mbbench.errors import BackendError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    _Images = NDArray[np.float32]
    _Task = tuple[_Images, Callable[[_Images], None] | None]

_REQUESTS_PER_STREAM = 2  # the one being computed and the next


def open_requests(backend: Backend, artifact: Artifact, device: str, *, threads: int, streams: int | None) -> Requests:
    """Return the runtime's own requests if it is `Streams`, else `SessionRequests`. Raises `BackendError`.

    `streams` sessions (by default one per thread) share the `threads`.
    """
    if isinstance(backend, Streams):
        return backend.open_requests(artifact, device, threads=threads, streams=streams)
    count = streams or threads
    threads_per_session = max(threads // count, 1)
    sessions: list[Session] = []
    try:
        for _ in range(count):
            sessions.append(backend.open(artifact, device, threads=threads_per_session, stage=lambda _: None))
    except BaseException:
        for session in sessions:
            session.close()
        raise
    return SessionRequests(sessions, threads_per_session)


@contextmanager
def pin_calling_thread(cpus: Collection[int]) -> Iterator[None]:
    """Move only the calling thread to `cpus`, if there are any: issuing requests must not take time from the runtime.

    The thread moves back at the end of the block.
    """
    if not cpus or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class SessionRequests(Requests):
    """Requests that each run on a free session of `sessions`, which have `threads` threads each."""

    def __init__(self, sessions: Sequence[Session], threads: int) -> None:
        self._sessions = sessions
        self._limit = _REQUESTS_PER_STREAM * len(sessions)
        self.facts = {
            **sessions[0].facts,
            "streams": str(len(sessions)),
            "requests": str(self._limit),
            "threads": str(threads * len(sessions)),
        }
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._free = Semaphore(self._limit)
        self._error: Exception | None = None
        self._workers = [Thread(target=self._work, args=(session,), daemon=True) for session in sessions]
        for worker in self._workers:
            worker.start()

    def _work(self, session: Session) -> None:
        while (task := self._tasks.get()) is not None:
            images, done = task
            try:
                logits = session.run(images)
                if done is not None:
                    done(logits)
            except Exception as error:  # `wait` raises it in the caller's thread
                self._error = error
            finally:
                self._free.release()

    def submit(self, images: _Images, done: Callable[[_Images], None] | None = None) -> None:
        self._free.acquire()
        self._tasks.put((images, done))

    def wait(self) -> None:
        for _ in range(self._limit):
            self._free.acquire()
        self._free.release(self._limit)
        if self._error is not None:
            error, self._error = self._error, None
            if isinstance(error, BackendError):
                raise error
            raise BackendError(f"a request failed: {error}", "try fewer streams") from error

    def close(self) -> None:
        for _ in self._workers:
            self._tasks.put(None)
        for worker in self._workers:
            worker.join()
        for session in self._sessions:
            session.close()
