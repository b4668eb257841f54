"""Our INT8 over LiteRT's: the ratio of median latencies of one network, quantized by each project's own tools.

    benchmarks/int8_vs_litert.py PYTHON [ALPHA RESOLUTION]

PYTHON is that of a virtual environment of its own, since LiteRT's converter brings JAX and much else:
`pip install -c constraints.txt litert-torch ai-edge-quantizer -e .` makes it. The network has NHWC input there, is
quantized statically (int8 weights by channel, int8 activations) on noise, and runs on XNNPACK with one thread. Each
side has a process of its own on the same CPU, and they take turns. Speed does not depend on the weights, so they are
random. Target: at most 0.95 on our best runtime, on a machine with VNNI.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

_SECONDS = 1.0
_ROUNDS = 10
_CALIBRATED = 16


def convert(parameters: str, target: str, alpha: str, resolution: str) -> None:
    """Make the .tflite of a folded network; runs in the other environment."""
    import litert_torch
    import numpy as np
    import torch
    from ai_edge_quantizer import quantizer, recipe
    from safetensors.torch import load_file

    from mbbench.models import build, fold_batch_norm, load_parameters
    from mbbench.spec import ModelSpec

    module = fold_batch_norm(build(ModelSpec(alpha=float(alpha), resolution=int(resolution))))
    load_parameters(module, load_file(parameters), parameters)
    nhwc = litert_torch.to_channel_last_io(module.eval(), args=[0])
    shape = (1, int(resolution), int(resolution), 3)
    plain = f"{target}.fp32.tflite"
    litert_torch.convert(nhwc, (torch.zeros(shape),)).export(plain)
    maker = quantizer.Quantizer(plain)
    maker.load_quantization_recipe(recipe.static_wi8_ai8())
    chance = np.random.default_rng(0)
    samples = [{"args_0": chance.uniform(-1, 1, shape).astype(np.float32)} for _ in range(_CALIBRATED)]
    statistics = maker.calibrate({"serving_default": samples})
    maker.quantize(statistics).export_model(target, overwrite=True)


def serve(path: str, cpu: str) -> None:
    """For every line of standard input write a median in ms; runs in the other environment."""
    import os

    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from common import median_ms

    os.sched_setaffinity(0, {int(cpu)})
    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
    images = np.random.default_rng(0).uniform(-1, 1, given["shape"]).astype(given["dtype"])

    def call() -> object:
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(wanted["index"])

    for _ in sys.stdin:
        print(median_ms(call, _SECONDS), flush=True)


def main(python: str, alpha: str = "1.0", resolution: str = "224") -> None:
    from common import alternate, artifact, images, median_ms, pin, row
    from int8_vs_fp32 import open_int8

    from mbbench.machine import pick_cpus
    from mbbench.spec import ModelSpec

    spec = ModelSpec(alpha=float(alpha), resolution=int(resolution))
    (cpu,) = pick_cpus(1)
    pin()
    inputs = images(spec)
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder, "model.tflite"))
        parameters = str(artifact(spec, "safetensors").path)
        command = [python, __file__, "convert", parameters, target, alpha, resolution]
        subprocess.run(command, check=True, capture_output=True)
        theirs = subprocess.Popen(
            [python, __file__, "time", target, str(cpu)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert theirs.stdin is not None and theirs.stdout is not None

        def their_median() -> float:
            assert theirs.stdin is not None and theirs.stdout is not None
            theirs.stdin.write("\n")
            theirs.stdin.flush()
            return float(theirs.stdout.readline())

        row("backend", "int8, ms", "LiteRT, ms", "ratio")
        for backend in ("openvino", "onnxruntime"):
            with open_int8(backend, spec) as session:
                run = session.run
                row(
                    backend,
                    *alternate(
                        lambda run=run: median_ms(lambda: run(inputs), _SECONDS),  # type: ignore[misc]
                        their_median,
                        _ROUNDS,
                    ),
                )
        theirs.stdin.close()
        theirs.wait()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    match sys.argv[1:]:
        case ["convert", *rest]:
            convert(*rest)
        case ["time", *rest]:
            serve(*rest)
        case given:
            main(*given)
