from dataclasses import replace
from pathlib import Path

import pytest

from mbbench.errors import MbbenchError
from mbbench.events import Announce, Working
from mbbench.machine import Machine, fingerprint, pick_cpus
from mbbench.measure import ceilings
from mbbench.measure.jobs import roofs
from mbbench.result import Ceilings, Failure
from mbbench.spec import Settings

FOUND = Ceilings(threads=1, mult_adds_per_s={"fp32": 2e10}, memory_bytes_per_s=1e10, cache_bytes_per_s=4e10)
MACHINE = fingerprint()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[roofs.Job]:
    """The jobs of the child processes, none of which runs; the cache is empty."""
    jobs: list[roofs.Job] = []

    def run_in_child(job: roofs.Job, start: roofs.Report) -> roofs.Report:
        assert type(job).__module__ == "mbbench.measure.jobs.roofs"
        jobs.append(job)
        return roofs.Report(phase="done", ceilings=replace(FOUND, threads=job.settings.threads))

    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(ceilings, "run_in_child", run_in_child)
    return jobs


def quiet(event: Working) -> None:
    pass


def of(machine: Machine = MACHINE, threads: int = 1, announce: Announce = quiet) -> Ceilings:
    return ceilings.of(machine, (0,), Settings(threads=threads), announce)


def test_they_are_measured_once_for_a_machine_and_a_number_of_threads(asked: list[roofs.Job], tmp_path: Path) -> None:
    told: list[Working] = []
    assert [of(announce=told.append), of(announce=told.append)] == [FOUND, FOUND]
    assert told == [Working("measuring the machine's ceilings", 0, 1)]
    assert of(threads=2).threads == 2
    of(replace(MACHINE, cpu="another"))
    of(replace(MACHINE, kernel="another"))
    assert [job.settings.threads for job in asked] == [1, 2, 1]
    assert len(list((tmp_path / "ceilings").iterdir())) == 3


def test_a_failure_is_told_and_not_remembered(asked: list[roofs.Job], monkeypatch: pytest.MonkeyPatch) -> None:
    failure = Failure(cause="killed", remedy="free memory", exit_code=7)
    with monkeypatch.context() as patch:
        patch.setattr(ceilings, "run_in_child", lambda *_: roofs.Report(phase="ceilings", failure=failure))
        with pytest.raises(MbbenchError, match="killed; free memory"):
            of()
        patch.setattr(
            ceilings, "run_in_child", lambda *_: roofs.Report(phase="ceilings", failure=replace(failure, exit_code=130))
        )
        with pytest.raises(KeyboardInterrupt):
            of()
    assert of() == FOUND


def test_int8_and_native_precisions_have_a_roof() -> None:
    assert ceilings.precisions(replace(MACHINE, isa=("avx2",))) == ("fp32", "int8")
    assert ceilings.precisions(replace(MACHINE, isa=("avx512_vnni", "avx512_bf16"))) == ("fp32", "bf16", "int8")


def test_a_real_process_finds_them() -> None:
    found = ceilings.of(MACHINE, pick_cpus(1), Settings(), quiet)
    assert found.threads == 1
    assert list(found.mult_adds_per_s) == list(ceilings.precisions(MACHINE))
    assert all(1e8 < rate < 1e13 for rate in found.mult_adds_per_s.values())
    assert found.mult_adds_per_s["int8"] >= found.mult_adds_per_s["fp32"]
    assert 1e8 < found.memory_bytes_per_s < 1e12
    assert 1e8 < found.cache_bytes_per_s < 1e13
