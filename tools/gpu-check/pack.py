"""Pack what a GPU machine without a network lacks: wheels for Python 3.12, and trained weights.

    .venv/bin/python tools/gpu-check/pack.py

writes .gpu-check/part-1, part-2, ... of at most 45 MB each. TensorRT-RTX is last: everything else fits into part-1.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from parts import compress, distribute

_HERE = Path(__file__).parent
_ROOT = _HERE.parent.parent
_PART_BYTES = 45_000_000
_COMPRESSED_FROM_BYTES = 20_000_000
_PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in range(34, 16, -1)), "manylinux2014_x86_64")
WEIGHTS = ((0.5, 128), (1.0, 224))  # alpha and resolution


def download(folder: Path) -> None:
    """Download the wheels of wheels.txt, without dependencies, and build those that have only a source distribution."""
    pip = [sys.executable, "-m", "pip", "--quiet"]
    wanted = ["--no-deps", "--constraint", str(_ROOT / "constraints.txt")]
    target = ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
    target += [option for platform in _PLATFORMS for option in ("--platform", platform)]
    lines = (_HERE / "wheels.txt").read_text().splitlines()
    for requirement in (line for line in lines if line and not line.startswith("#")):
        command = [*pip, "download", *wanted, *target, "--dest", str(folder), requirement]
        if subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
            subprocess.run([*pip, "wheel", *wanted, "--wheel-dir", str(folder), requirement], check=True)


def train(folder: Path) -> None:
    """Write the checkpoints of the networks that are measured, trained on the digits."""
    for alpha, resolution in WEIGHTS:
        output = folder / f"{alpha}-{resolution}.safetensors"
        options = ["--alpha", str(alpha), "--res", str(resolution), "--output", str(output)]
        subprocess.run([sys.executable, "-m", "mbbench", "train", *options], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=_ROOT / ".gpu-check", help="Folder of the parts.")
    target: Path = parser.parse_args().output
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        download(folder)
        train(folder)
        files = [
            compress(path, folder) if path.suffix == ".whl" and path.stat().st_size > _COMPRESSED_FROM_BYTES else path
            for path in sorted(folder.iterdir())
        ]
        files.sort(key=lambda path: path.name.startswith("tensorrt"))
        for part in distribute(files, target, _PART_BYTES):
            names = sorted(path.name for path in part.iterdir())
            size_mb = sum(path.stat().st_size for path in part.iterdir()) / 1e6
            print(f"{part}: {size_mb:.1f} MB: {', '.join(names)}")


if __name__ == "__main__":
    main()
