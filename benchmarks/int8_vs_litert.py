"""Median latency of mbbench's INT8, divided by that of LiteRT's INT8, for one network.

    .venv/bin/python benchmarks/int8_vs_litert.py PYTHON [ALPHA RESOLUTION]

Target: at most 0.95 on the faster of OpenVINO and ONNX Runtime, on a CPU with VNNI. Each project quantizes with its own
tools. PYTHON belongs to a separate virtual environment with
`pip install -c constraints.txt litert-torch ai-edge-quantizer -e .`, since LiteRT's converter installs JAX and other
packages. There the network has NHWC input, is quantized statically on noise (int8 weights per channel, int8
activations), and runs on XNNPACK with one thread. The two processes alternate on the same CPU. Speed does not depend on
the weights, so they are random.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

_SECONDS = 1.0
_ROUNDS = 10
_CALIBRATION_IMAGES = 16


def convert(parameters: str, target: str, alpha: str, resolution: str) -> None:
    """Write the quantized .tflite of a folded network; runs in LiteRT's environment."""
    import litert_torch
    import numpy as np
    import torch
    from ai_edge_quantizer import quantizer, recipe
    from safetensors.torch import load_file

    from mbbench.models import build, fold_batch_norm, load_parameters
    from mbbench.spec import ModelSpec

    module = build(ModelSpec(alpha=float(alpha), resolution=int(resolution)))
    load_parameters(module, load_file(parameters), parameters)
    nhwc = litert_torch.to_channel_last_io(fold_batch_norm(module).eval(), args=[0])
    shape = (1, int(resolution), int(resolution), 3)
    plain = f"{target}.fp32.tflite"
    litert_torch.convert(nhwc, (torch.zeros(shape),)).export(plain)
    int8 = quantizer.Quantizer(plain)
    int8.load_quantization_recipe(recipe.static_wi8_ai8())
    rng = np.random.default_rng(0)
    samples = [{"args_0": rng.uniform(-1, 1, shape).astype(np.float32)} for _ in range(_CALIBRATION_IMAGES)]
    statistics = int8.calibrate({"serving_default": samples})
    int8.quantize(statistics).export_model(target, overwrite=True)


def serve(path: str, cpu: str) -> None:
    """Print a median in ms for every line of standard input; runs in LiteRT's environment."""
    import os

    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from common import median_ms

    os.sched_setaffinity(0, {int(cpu)})
    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    (image,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()
    noise = np.random.default_rng(0).uniform(-1, 1, image["shape"]).astype(image["dtype"])

    def call() -> object:
        interpreter.set_tensor(image["index"], noise)
        interpreter.invoke()
        return interpreter.get_tensor(logits["index"])

    for _ in sys.stdin:
        print(median_ms(call, _SECONDS), flush=True)


def main(python: str, alpha: str = "1.0", resolution: str = "224") -> None:
    from common import alternate, images, median_ms, pin, row
    from int8_vs_fp32 import open_int8

    from mbbench import weights
    from mbbench.machine import pick_cpus
    from mbbench.spec import ModelSpec

    spec = ModelSpec(alpha=float(alpha), resolution=int(resolution))
    (cpu,) = pick_cpus(1)
    pin()
    inputs = images(spec)
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder, "model.tflite"))
        parameters = str(weights.random(spec).path)
        command = [python, __file__, "convert", parameters, target, alpha, resolution]
        subprocess.run(command, check=True, capture_output=True)
        litert = subprocess.Popen(
            [python, __file__, "time", target, str(cpu)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert litert.stdin is not None and litert.stdout is not None

        def litert_ms() -> float:
            assert litert.stdin is not None and litert.stdout is not None
            litert.stdin.write("\n")
            litert.stdin.flush()
            return float(litert.stdout.readline())

        row("backend", "int8, ms", "LiteRT, ms", "ratio")
        for backend in ("openvino", "onnxruntime"):
            with open_int8(backend, spec) as session:
                run = session.run
                row(
                    backend,
                    *alternate(
                        lambda run=run: median_ms(lambda: run(inputs), _SECONDS),  # type: ignore[misc]
                        litert_ms,
                        _ROUNDS,
                    ),
                )
        litert.stdin.close()
        litert.wait()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    match sys.argv[1:]:
        case ["convert", *rest]:
            convert(*rest)
        case ["time", *rest]:
            serve(*rest)
        case arguments:
            main(*arguments)
