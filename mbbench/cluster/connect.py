"""Checks before connecting to a scheduler."""

from __future__ import annotations

import re

from mbbench.errors import UsageError

TIMEOUT_S = 10
_ADDRESS = re.compile(r"(?:(?:tcp|tls|ws|wss)://)?(?:\[[0-9a-fA-F:.]+\]|[\w.-]+):(\d{1,5})")
_MAX_PORT = 65_535
_SET_UP_CERTIFICATES = "set up certificates as docs/cluster.md describes"


def require_address(scheduler: str) -> None:
    """Raise `UsageError` unless `scheduler` is an address of Dask's: tls://host:8786, or host:8786."""
    match = _ADDRESS.fullmatch(scheduler)
    if match is None or not 0 < int(match[1]) <= _MAX_PORT:
        raise UsageError(f"not an address of a Dask scheduler: {scheduler!r}", "write it like tls://host:8786")


def require_distributed(scheduler: str, role: str) -> None:
    """Raise `UsageError` unless the address is one, Dask is installed and, for a tls:// scheduler, has certificates.

    `role` is the section of Dask's configuration: `client` or `worker`.
    """
    require_address(scheduler)
    try:
        from distributed.security import Security
    except ImportError as error:
        raise UsageError(f"Dask cannot be imported ({error})", "run `pip install 'mbbench[cluster]'`") from error
    if not scheduler.startswith("tls://"):
        return
    try:
        certificates = Security().get_connection_args(role)["ssl_context"]  # type: ignore[no-untyped-call]
    except OSError as error:
        raise UsageError(f"Dask cannot read its certificates ({error})", _SET_UP_CERTIFICATES) from error
    if certificates is None:
        raise UsageError(f"{scheduler} requires certificates, but Dask's configuration has none", _SET_UP_CERTIFICATES)


def unreachable_error(scheduler: str) -> UsageError:
    """Return the error for a scheduler that does not answer."""
    return UsageError(f"no scheduler answers at {scheduler}", "start `dask scheduler` there, or correct the address")
