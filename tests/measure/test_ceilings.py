from dataclasses import replace
from pathlib import Path

import pytest

from mbbench.errors import MbbenchError
from mbbench.events import Announce, Preparing, Stated
from mbbench.machine import Machine, fingerprint, pick_cpus
from mbbench.measure import ceilings
from mbbench.measure.jobs import roofs
from mbbench.result import Ceilings, Failure
from mbbench.spec import Settings

CEILINGS = Ceilings(threads=1, mult_adds_per_s={"fp32": 2e10}, memory_bytes_per_s=1e10, cache_bytes_per_s=4e10)
MACHINE = fingerprint()


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[roofs.Job]:
    """The jobs of the child processes, none of which starts; the cache is empty."""
    jobs: list[roofs.Job] = []

    def run_in_child(job: roofs.Job, start: roofs.Report) -> roofs.Report:
        assert type(job).__module__ == "mbbench.measure.jobs.roofs"
        jobs.append(job)
        return roofs.Report(phase="done", ceilings=replace(CEILINGS, threads=job.settings.threads))

    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(ceilings, "run_in_child", run_in_child)
    return jobs


def quiet(event: Preparing | Stated) -> None:
    pass


def measure(machine: Machine = MACHINE, threads: int = 1, announce: Announce = quiet) -> Ceilings:
    return ceilings.machine_ceilings(machine, (0,), Settings(threads=threads), announce)


def test_ceilings_are_measured_once_per_machine_and_number_of_threads(jobs: list[roofs.Job], tmp_path: Path) -> None:
    events: list[Preparing | Stated] = []
    assert [measure(announce=events.append), measure(announce=events.append)] == [CEILINGS, CEILINGS]
    assert events == [Preparing("measuring the machine's ceilings", 0, 0)]  # 0 steps: a child measures
    assert measure(threads=2).threads == 2
    measure(replace(MACHINE, cpu="another"))
    measure(replace(MACHINE, kernel="another"))
    assert [job.settings.threads for job in jobs] == [1, 2, 1]
    assert len(list((tmp_path / "ceilings").iterdir())) == 3


def test_a_failure_is_raised_and_not_cached(jobs: list[roofs.Job], monkeypatch: pytest.MonkeyPatch) -> None:
    failure = Failure(cause="killed", remedy="free memory", exit_code=7)
    with monkeypatch.context() as patch:
        patch.setattr(ceilings, "run_in_child", lambda *_: roofs.Report(phase="ceilings", failure=failure))
        with pytest.raises(MbbenchError, match="killed; free memory"):
            measure()
        patch.setattr(
            ceilings, "run_in_child", lambda *_: roofs.Report(phase="ceilings", failure=replace(failure, exit_code=130))
        )
        with pytest.raises(KeyboardInterrupt):
            measure()
    assert measure() == CEILINGS


def test_int8_and_native_precisions_have_a_ceiling() -> None:
    assert ceilings.cell_precisions(replace(MACHINE, isa=("avx2",))) == ("fp32", "int8")
    assert ceilings.cell_precisions(replace(MACHINE, isa=("avx512_vnni", "avx512_bf16"))) == ("fp32", "bf16", "int8")


def test_a_real_process_measures_plausible_ceilings() -> None:
    measured = ceilings.machine_ceilings(MACHINE, pick_cpus(1), Settings(), quiet)
    assert measured.threads == 1
    assert list(measured.mult_adds_per_s) == list(ceilings.cell_precisions(MACHINE))
    assert all(1e8 < rate < 1e13 for rate in measured.mult_adds_per_s.values())
    assert measured.mult_adds_per_s["int8"] >= measured.mult_adds_per_s["fp32"]
    assert 1e8 < measured.memory_bytes_per_s < 1e12
    assert 1e8 < measured.cache_bytes_per_s < 1e13
