"""Test support: the conformance suite that every backend must pass, and a fake backend with scripted latencies.

    from mbbench.testing import BackendContract

    class TestMine(BackendContract):
        name = "mine"

pytest then runs the suite against the installed backend called `mine`.
"""

from mbbench.testing.contract import BackendContract
from mbbench.testing.fakes import FakeBackend, FakeClock, FakeSession

__all__ = ["BackendContract", "FakeBackend", "FakeClock", "FakeSession"]
