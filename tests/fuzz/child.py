"""Read mutated files, in a process with limits: child.py START STOP FORMAT ...

The files of a format are in a folder of its name. A line is written before each mutation, with its format and seed, and
a line of JSON after it: what came of it. A process that is killed, by a signal or by its limit of CPU time, thus names
the mutation.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from doors import DOORS  # type: ignore[import-not-found]
from mutate import mutated  # type: ignore[import-not-found]

_MEMORY_BYTES = 2 << 30  # more than the process has when it begins
_CPU_S = 20.0  # for one mutation; SIGPROF ends the process
_FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
    "ctypes.dlopen",
)

_reading = False
_ran: list[str] = []


def _audit(event: str, _arguments: tuple[Any, ...]) -> None:
    if _reading and event in _FORBIDDEN:
        _ran.append(event)


def _outcome(kind: str, path: Path) -> tuple[str, str]:
    """Read the file; return `accepted`, `refused` with the message, or `failed` with what is wrong."""
    from mbbench.errors import MbbenchError, visible

    global _reading
    _ran.clear()
    _reading = True
    try:
        DOORS[kind].read(path)
        result = ("accepted", "")
    except MbbenchError as error:
        text = str(error)
        result = ("refused", text) if error.exit_code == 2 and visible(text) == text else ("failed", repr(error))
    except BaseException:
        result = ("failed", traceback.format_exc())
    _reading = False
    return ("failed", f"it ran {_ran}") if _ran else result


def read_mutations(kind: str, start: int, stop: int) -> None:
    folder = Path(kind, "in")
    folder.mkdir(parents=True)
    paths = DOORS[kind].make(folder)
    intact = {path: path.read_bytes() for path in paths}
    for path in dict.fromkeys(paths):  # also imports everything, before memory is limited
        DOORS[kind].read(path)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + _MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
    for seed in range(start, stop):
        path = paths[seed % len(paths)]
        print(kind, seed, flush=True)
        path.write_bytes(mutated(kind, seed, intact[path]))
        signal.setitimer(signal.ITIMER_PROF, _CPU_S)
        result, detail = _outcome(kind, path)
        signal.setitimer(signal.ITIMER_PROF, 0)
        path.write_bytes(intact[path])
        print(json.dumps({"mutation": f"{kind} {seed}", "outcome": result, "detail": detail}), flush=True)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_audit)
    for name in sys.argv[3:]:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        read_mutations(name, int(sys.argv[1]), int(sys.argv[2]))
