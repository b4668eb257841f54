"""Names of results in titles and tables."""

from __future__ import annotations

from mbbench.result import Result


def runtime_label(result: Result) -> str:
    """Return backend, version, device if it was chosen, and precision unless fp32: `openvino 2026.4.1 int8`."""
    runtime = result.cell.backend.split("-")[0]  # of `torch-eager`; LiteRT's distribution is `ai-edge-litert`
    version = next((version for name, version in result.versions.items() if runtime in name), "")
    precision = "" if result.cell.precision == "fp32" else result.cell.precision
    return " ".join(part for part in (result.cell.backend, version, result.cell.device, precision) if part)
