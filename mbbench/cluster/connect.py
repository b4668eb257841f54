"""What can go wrong on the way to a scheduler, in one line."""

from __future__ import annotations

from mbbench.errors import UsageError

TIMEOUT_S = 10


def require_distributed(scheduler: str, role: str) -> None:
    """Raise `UsageError` unless Dask is installed and, where the scheduler asks for them, has certificates."""
    try:
        from distributed.security import Security
    except ImportError as error:
        raise UsageError(f"Dask cannot be imported ({error})", "run `pip install 'mbbench[cluster]'`") from error
    if not scheduler.startswith("tls://"):
        return
    try:
        certificates = Security().get_connection_args(role)["ssl_context"]  # type: ignore[no-untyped-call]
    except OSError as error:
        raise UsageError(f"Dask cannot read its certificates ({error})", "see docs/cluster.md") from error
    if certificates is None:
        raise UsageError(f"{scheduler} needs certificates, Dask's configuration names none", "see docs/cluster.md")


def unreachable(scheduler: str) -> UsageError:
    return UsageError(f"no scheduler answers at {scheduler}", "start `dask scheduler` there, and look at its address")
