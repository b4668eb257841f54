"""How results are called."""

from __future__ import annotations

from mbbench.result import Result


def device_of(result: Result) -> str:
    """`openvino 2026.4.1 int8`, with the device if one was asked for; fp32 goes without saying."""
    runtime = result.cell.backend.split("-")[0]  # of `torch-eager`; LiteRT's distribution is `ai-edge-litert`
    version = next((version for name, version in result.versions.items() if runtime in name), "")
    precision = "" if result.cell.precision == "fp32" else result.cell.precision
    return " ".join(part for part in (result.cell.backend, version, result.cell.device, precision) if part)
