import subprocess
import sys
from pathlib import Path

import pytest

from mbbench.measure import memory
from mbbench.result import Memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is read on Linux only")


def test_rss_and_peak_are_read_in_bytes(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t  900 kB\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\n")
    assert memory.read("load", status) == Memory(phase="load", rss_bytes=204_800, peak_rss_bytes=307_200)


def test_the_peak_includes_freed_memory() -> None:
    code = (
        "from mbbench.measure.memory import read\n"
        "before = read('start')\n"
        "block = bytearray(100_000_000); del block\n"
        "after = read('steady')\n"
        "assert after.peak_rss_bytes - before.peak_rss_bytes > 90_000_000\n"
        "assert after.rss_bytes - before.rss_bytes < 20_000_000\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
