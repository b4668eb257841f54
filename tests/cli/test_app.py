"""The command line end to end: standard output, standard error and exit codes."""

import csv
import importlib.util
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

from mbbench import registry, store, weights
from mbbench.cli import app
from mbbench.models import build
from mbbench.report.formats import html
from mbbench.result import Result
from mbbench.spec import ModelSpec

MBBENCH = [sys.executable, "-c", "from mbbench.cli.app import main; main()"]
QUICK = ("run", "--alpha", "0.25", "--res", "32", "--weights", "random", "--backend", "onnxruntime", "--images", "40")
Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fast(tmp_path: Path) -> str:
    path = tmp_path / "fast.toml"
    path.write_text(
        "[settings]\nmin_samples = 20\nmin_s = 0.01\nmax_s = 1.0\n"
        "warmup_max_s = 0.5\nthroughput_s = 0.05\nbulk_batch = 8\n"
    )
    return str(path)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], ["run", "--plan"]])
def test_help_and_plan_load_neither_torch_nor_numpy(arguments: list[str]) -> None:
    code = (
        "import sys; from mbbench.cli.app import main; sys.argv[1:] = " + repr(arguments) + "\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'onnx', 'sklearn'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "r.jsonl"],
        ["report", "r.jsonl", "-o", "r.md", "-o", "r.csv"],
        ["verify", "r.html"],
        ["choose", "r.jsonl", "--max-p99", "1s"],
        ["compare", "r.jsonl", "r.jsonl"],
        ["explain", "r.jsonl"],
        ["cost", "--model", "googlenet"],
        ["cost", "--paper"],
        ["backends"],
    ],
    ids=lambda arguments: " ".join(arguments[:1]),
)
def test_reading_commands_do_not_load_pytorch(
    arguments: list[str], make_result: Callable[..., Result], tmp_path: Path
) -> None:
    fp32 = make_result(ModelSpec("vgg16", resolution=128, classes=10))
    results = [fp32, replace(fp32, cell=replace(fp32.cell, precision="int8"))]
    for result in results:
        store.append(tmp_path / "r.jsonl", result)
    (tmp_path / "r.html").write_text(html.render(results))
    code = (
        f"import sys; from mbbench.cli.app import main; sys.argv[1:] = {arguments!r}\n"
        "try: main()\nexcept SystemExit as end: assert end.code in (None, 0, 5), end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", ["--help", "run --help", "cost --paper", "cost --format json"])
def test_a_closed_pipe_ends_quietly(arguments: str) -> None:
    with subprocess.Popen([*MBBENCH, *arguments.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_a_closed_output_is_no_error_and_an_error_keeps_its_code(tmp_path: Path) -> None:
    command = f"{sys.executable} -m mbbench"
    for line, code in (("cost --format json >&-", 0), ("cost --model nope 2>&1 | true; exit ${PIPESTATUS[0]}", 2)):
        done = subprocess.run(["bash", "-c", f"{command} {line}"], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (code, ""), line


def test_characters_that_the_output_lacks_are_replaced(make_result: Callable[..., Result], tmp_path: Path) -> None:
    store.append(tmp_path / "r.jsonl", make_result())
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*MBBENCH, "show", str(tmp_path / "r.jsonl")], env=ascii_only, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "????" in done.stdout  # the rule under a table's header


def test_the_list_of_commands_is_printed_without_importing_any() -> None:
    code = (
        "import sys; from mbbench.cli.app import main; sys.argv[1:] = ['--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "mine = {name for name in sys.modules if name.startswith('mbbench')}\n"
        "cli = {f'mbbench.cli.{name}' for name in ('app', 'command', 'help', 'interruption', 'mistakes')}\n"
        "assert mine == {'mbbench', 'mbbench.cli', 'mbbench.errors', *cli}, mine\n"
        "assert 'rich.console' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_list_of_commands_has_the_first_line_of_each_docstring() -> None:
    for commands in app.COMMANDS.values():
        for name, (module, summary) in commands.items():
            command = getattr(import_module(f"mbbench.cli.{module}"), name)
            assert command.__doc__.splitlines()[0] == summary


def test_mbbench_without_arguments_lists_the_commands(invoke: Invoke) -> None:
    _, out, err = invoke()
    assert all(name in out + err for name in ("run", "train", "compress", "cost", "explain", "backends", "doctor"))


def test_the_report_goes_to_stdout_and_progress_to_stderr(invoke: Invoke, fast: str, tmp_path: Path) -> None:
    code, out, err = invoke(*QUICK, "--profile", fast)
    assert code == 0
    assert "0.25 MobileNet-32 on onnxruntime" in out
    assert "[1/1] measuring 0.25 MobileNet-32 on onnxruntime ..." in err
    assert "1 result in reports/results.jsonl" in err
    assert "\x1b" not in out + err
    (result,) = store.read(tmp_path / "reports" / "results.jsonl")
    assert result.settings.min_samples == 20


def test_a_stored_run_is_reported_shown_and_verified(invoke: Invoke, fast: str, tmp_path: Path) -> None:
    assert invoke(*QUICK, "--profile", fast)[0] == 0
    code, out, err = invoke("report", "reports/results.jsonl", "-o", "page.html", "-o", "page.md")
    assert (code, out) == (0, "")
    assert "page.html written: 1 result, " in err
    code, out, _ = invoke("show")
    assert code == 0
    assert "Layers of 0.25 MobileNet-32 on onnxruntime" in out
    code, out, _ = invoke("verify", "page.html")
    assert code == 0
    assert out.startswith("page.html agrees with its 1 record: ")
    page = tmp_path / "page.html"
    page.write_text(page.read_text().replace("Agreement: share", "Disagreement: share"))
    code, out, err = invoke("verify", "page.html")
    assert (code, out) == (5, "")
    assert "Disagreement: share" in err
    assert "error: page.html contradicts its records in 1 place; do not rely on it" in err


def test_an_exported_file_is_measured_unless_it_was_changed(invoke: Invoke, fast: str, tmp_path: Path) -> None:
    network = ("--alpha", "0.25", "--res", "32", "--weights", "random")
    code, out, err = invoke("export", "--to", "onnxruntime", *network, "-o", "mine.onnx")
    assert (code, out) == (0, "")
    assert "mine.onnx written: 0.25 MobileNet-32 on onnxruntime, onnx, " in err
    assert sorted(path.name for path in tmp_path.glob("mine*")) == ["mine.onnx", "mine.onnx.json", "mine.onnx.npz"]
    for data, name in (((), "the artifact's sidecar"), (("--data", "digits"), "digits")):
        code, out, _ = invoke("run", "--artifact", "mine.onnx", *data, "--images", "40", "--profile", fast)
        assert code == 0
        assert "0.25 MobileNet-32 on onnxruntime: " in out
        result = store.read(tmp_path / "reports" / "results.jsonl")[-1]
        assert result.data is not None and result.data.name == name
    code, _, err = invoke("run", "--artifact", "mine.onnx", "--data", "missing")
    assert (code, "no data folder 'missing'" in err) == (2, True)
    (tmp_path / "mine.onnx").write_bytes(b"changed")
    code, _, err = invoke("run", "--artifact", "mine.onnx")
    assert code == 2
    assert "mine.onnx is not the file that mine.onnx.json describes" in err
    assert invoke("run", "--trust") == (2, "", "error: --trust requires --artifact; name the file with --artifact\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--alpha 0.5", "--alpha contradicts mine.onnx, which holds 0.25: 0.5; leave out --alpha, or export again"),
        ("--res 32,64", "--res contradicts mine.onnx, which holds 32: 32,64; leave out --res, or export again"),
        ("--model vgg16", "--model contradicts mine.onnx, which holds mobilenet_v1: vgg16; leave out --model, or"),
        ("--backend openvino", "--backend contradicts mine.onnx, which holds onnxruntime: openvino; leave out"),
        ("--precision int8", "--precision contradicts mine.onnx, which holds fp32: int8; leave out --precision"),
        ("--variant shallow", "--variant contradicts mine.onnx, which holds standard: shallow; leave out --variant"),
    ],
)
def test_options_that_contradict_an_exported_file_are_refused(invoke: Invoke, options: str, message: str) -> None:
    network = ("--alpha", "0.25", "--res", "32", "--weights", "random")
    assert invoke("export", "--to", "onnxruntime", *network, "-o", "mine.onnx")[0] == 0
    code, out, err = invoke("run", "--artifact", "mine.onnx", "--plan", *options.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    same = ("--alpha", "0.25", "--backend", "onnxruntime", "--device", "cpu", "--profile", "ci")
    code, out, _ = invoke("run", "--artifact", "mine.onnx", "--plan", *same)
    assert (code, "0.25 MobileNet-32   fp32        onnxruntime" in out) == (0, True)


def test_comma_separated_numbers_plan_a_grid(invoke: Invoke) -> None:
    code, out, _ = invoke("run", "--alpha", "0.25,0.5", "--res", "96,128", "--plan")
    assert code == 0
    assert all(f"{alpha} MobileNet-{size}" in out for alpha in ("0.25", "0.5") for size in (96, 128))
    code, _, err = invoke("run", "--alpha", "wide", "--plan")
    assert (code, err) == (
        2,
        "error: --alpha is not a list of numbers: wide; write it like --alpha 0.5,1.0 or 0.25-1+0.25\n",
    )


def test_ranges_and_families_plan_a_sweep(invoke: Invoke) -> None:
    arguments = (
        "--alpha",
        "0.25-1+0.25",
        "--res",
        "96-160+32,224",
        "--model",
        "mobilenet_v1,vgg16",
        "--format",
        "json",
    )
    code, out, _ = invoke("sweep", *arguments, "--plan")
    assert code == 0
    cells = [cell["model"] for cell in json.loads(out)["cells"]]
    assert [(model["family"], model["alpha"], model["resolution"]) for model in cells] == [
        *[("mobilenet_v1", alpha, res) for alpha in (0.25, 0.5, 0.75, 1.0) for res in (96, 128, 160, 224)],
        *[("vgg16", 1.0, res) for res in (96, 128, 160, 224)],
    ]
    code, _, err = invoke("sweep", "--res", "96-160+0", "--plan")
    assert (code, err) == (
        2,
        "error: --res is not a list of numbers: 96-160+0; write it like --res 128,224 or 128-224+32\n",
    )


def test_resume_needs_an_earlier_sweep_and_no_options_about_cells(invoke: Invoke) -> None:
    code, _, err = invoke("sweep", "--resume")
    assert (code, err) == (
        2,
        "error: no sweep to resume in reports/results.jsonl; give its --results, or omit --resume\n",
    )
    code, _, err = invoke("sweep", "--resume", "--alpha", "0.5")
    assert (code, err) == (
        2,
        "error: --resume takes cells and settings from the sweep that it continues;"
        " leave out all other options except --results, --cluster, --format and --plan\n",
    )


def test_choose_fails_if_no_stored_result_is_within_the_limits(invoke: Invoke, fast: str) -> None:
    assert invoke(*QUICK, "--profile", fast)[0] == 0
    code, out, _ = invoke("choose", "--max-size", "5MB", "--max-rss", "2GB", "--format", "json")
    assert (code, [row["pick"] for row in json.loads(out)]) == (0, [True])
    code, out, err = invoke("choose", "--max-size", "5kB", "--min-top1", "60")
    assert (code, err) == (
        5,
        "error: no cell is within the limits; relax a limit, or measure more cells with `mbbench sweep`\n",
    )
    assert "None of 1 cells is within the limits." in out
    assert invoke("choose", "--max-p99", "10")[0] == 2


@pytest.mark.parametrize("output", ["json", "csv", "markdown"])
def test_stdout_holds_only_the_requested_format(invoke: Invoke, fast: str, output: str) -> None:
    code, out, _ = invoke(*QUICK, "--profile", fast, "--format", output)
    assert code == 0
    if output == "json":
        (record,) = json.loads(out)
        assert record["cell"]["backend"] == "onnxruntime"
        assert len(record["measured"]["latency"]["samples_ms"]) == record["measured"]["latency"]["n"]
    elif output == "csv":
        header, row = csv.reader(out.splitlines())
        assert float(row[header.index("measured.latency.median_ms")]) > 0
        assert len(row) == len(header)
    else:
        assert out.startswith("**0.25 MobileNet-32 on onnxruntime: ")


def test_plan_measures_and_writes_nothing(invoke: Invoke, tmp_path: Path) -> None:
    code, out, _ = invoke("run", "--alpha", "0.5", "--res", "128", "--baselines", "--plan")
    assert code == 0
    assert "3 cells, 15 to 48 s of measuring" in out
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("--backend onnx", 6, "unknown backend: 'onnx'; did you mean onnxruntime? choose an installed backend ("),
        ("--backend onnxruntime --device gpu", 6, "unknown device: 'gpu'; choose one of cpu"),
        ("--backend onnxruntime --precision bf16", 6, "onnxruntime has no native bf16 on cpu here and would only"),
        ("--data no-such", 2, "there is no data folder 'no-such'; give a folder of images"),
        ("--calibration no-such", 2, "there is no data folder 'no-such'; give a folder of images"),
        ("--weights no-such.pt", 2, "cannot read the checkpoint no-such.pt (No such file or directory); give a"),
        ("--threads 4000", 2, "--threads is more than the number of available CPUs, "),
        ("--images 0", 2, "--images is out of range: 0; give 1 to 10000000, or leave it out to use all"),
        ("--max-drop nan", 2, "--max-drop is out of range: nan points; give 0 to 100 points"),
        ("--max-drop=-1", 2, "--max-drop is out of range: -1 points; give 0 to 100 points"),
        ("--max-drop inf", 2, "--max-drop is out of range: inf points; give 0 to 100 points"),
        ("--batch 99999999999", 2, "--batch is out of range: 99999999999 images; give 1 to 100000 images"),
        ("--res 2048 --weights random --batch 90000", 2, "--batch 90000 does not fit into the memory with 1.0 Mobi"),
        ("--results /dev/null/r.jsonl", 2, "cannot write /dev/null/r.jsonl (Not a directory); choose another file"),
    ],
)
@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_plan_refuses_what_the_run_would_refuse(
    invoke: Invoke, tmp_path: Path, command: str, arguments: str, code: int, message: str
) -> None:
    actual_code, out, err = invoke(command, "--plan", *arguments.split())
    assert (actual_code, out) == (code, "")
    assert err.startswith(f"error: {message}") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_plan_of_a_cluster_does_not_look_at_this_machine(invoke: Invoke) -> None:
    cluster = ("sweep", "--plan", "--threads", "4000", "--backend", "mine", "--cluster")
    assert invoke(*cluster, "tls://host:8786")[0] == 0
    assert invoke(*cluster, "host")[::2] == (
        2, "error: not an address of a Dask scheduler: 'host'; write it like tls://host:8786\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train --res 0", "--res of MobileNet is out of range: 0 pixels; give 32 to 2048 pixels, such as 128, 160"),
        ("train --res=-1", "--res of MobileNet is out of range: -1 pixels; give 32 to 2048 pixels"),
        ("train --res 99999999999999999999", "--res of MobileNet is out of range: 99999999999999999999 pixels"),
        ("train --epochs 0", "--epochs is out of range: 0; give 1 to 10000"),
        ("train --data no-such", "there is no data folder 'no-such'"),
        ("train -o /dev/null/x", "cannot write /dev/null/x (/dev/null is not a folder to write to); choose another"),
        ("compress", "nothing to do: no compression was chosen; give --prune, --max-latency, --teacher or --qat"),
        ("compress --qat --teacher-alpha nan", "--teacher-alpha is out of range: nan; give more than 0 and at most 8"),
        ("compress --teacher no-such.pt", "cannot read the checkpoint no-such.pt (No such file or directory)"),
        ("compress --max-latency 5ms --backend onnx", "unknown backend: 'onnx'; did you mean onnxruntime?"),
        ("choose --min-top1 nan", "--min-top1 is out of range: nan%; give 0% to 100%"),
        ("choose --min-top1=-1", "--min-top1 is out of range: -1%; give 0% to 100%"),
        ("choose --min-top1 120", "--min-top1 is out of range: 120%; give 0% to 100%"),
        ("choose --max-rss 0MB", "--max-rss is out of range: 0MB; give more than 0GB and at most 100000GB"),
        ("fit --max-p99 5ms --max-cells 0", "--max-cells is out of range: 0 networks; give 1 to 10000 networks"),
        ("sweep --predict 4 --plan", "--predict is out of range: 4 networks; give 5 to 10000 networks"),
        ("export --to onnx -o x", "unknown backend: 'onnx'; did you mean onnxruntime? choose an installed backend ("),
        ("export --to onnxruntime -o .", "cannot write . (it is a folder); choose another path"),
        ("worker tls://host:8786 --resources ort", "unknown backend: 'ort'; did you mean onnxruntime?"),
        ("worker host", "not an address of a Dask scheduler: 'host'; write it like tls://host:8786"),
    ],
)
def test_a_value_is_refused_before_any_work(invoke: Invoke, arguments: str, message: str, tmp_path: Path) -> None:
    code, out, err = invoke(*arguments.split())
    assert (code, out) == (6 if "backend:" in message else 2, "")
    assert err.startswith(f"error: {message}") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_cost_counts_a_network_and_compares_it_with_the_paper(invoke: Invoke) -> None:
    code, out, _ = invoke("cost", "--alpha", "0.5", "--res", "160")
    assert code == 0
    assert "76.5 M" in out
    assert "The paper's Table 9: Mult-Adds and parameters, in millions" in out
    record = json.loads(invoke("cost", "--format", "json")[1])
    assert sum(layer["mult_adds"] for layer in record["cost"]["layers"]) == 568_740_352


def test_cost_counts_a_network_with_another_number_of_classes(invoke: Invoke) -> None:
    """The paper's Table 10 has 120 classes: 3.3 million parameters, as counted here."""
    code, out, _ = invoke("cost", "--classes", "120")
    assert code == 0
    assert out.splitlines()[1] == "1.0 MobileNet-224, 120 classes"
    assert "3.33 M (3.31 M without biases and batch norm)" in out
    assert "The paper's Table 10: Mult-Adds and parameters, in millions" in out
    record = json.loads(invoke("cost", "--classes", "120", "--format", "json")[1])
    assert record["spec"]["classes"] == 120
    assert sum(layer["mult_adds"] for layer in record["cost"]["layers"]) == 568_740_352 - 880 * 1024
    assert sum(layer["weights"] for layer in record["cost"]["layers"]) == 3_307_968
    assert invoke("cost", "--classes", "1")[0] == 2
    for options in (["--model", "vgg16"], ["--classes", "5"], ["--alpha", "0.5"]):
        code, _, err = invoke("cost", "mine.onnx", *options)
        assert (code, err.split(";")[0]) == (2, "error: mine.onnx has its own width and classes")
    code, _, err = invoke("cost", "--model", "timm:resnet18")
    assert (code, err.split(";")[0]) == (2, "error: not a built-in network: timm:resnet18")


def test_cost_counts_the_networks_of_all_the_papers_tables(invoke: Invoke) -> None:
    record = json.loads(invoke("cost", "--paper", "--format", "json")[1])
    counted = {(row["name"], row["what"]): row["counted"] for row in record["tables_4_to_9"]}
    assert counted["1.0 MobileNet-224 (4, 6, 7, 8)", "Mult-Adds"] == 568.740352
    assert "| VGG 16 (8) | 15470.3\\* | 15300 | 138.3 | 138 |" in invoke("cost", "--paper", "--format", "markdown")[1]


def test_train_prints_the_checkpoints_path_and_reuses_an_earlier_training(invoke: Invoke, tmp_path: Path) -> None:
    command = ("train", "--alpha", "0.25", "--res", "32", "--epochs", "1")
    code, out, err = invoke(*command, "-o", "mine.safetensors")
    assert (code, out) == (0, "mine.safetensors\n")
    assert re.search(r"^0\.25 MobileNet-32: top-1 [0-9.]+ % on the 359 test images of digits$", err, re.MULTILINE)
    cached = Path(invoke(*command)[1].strip())
    assert cached.read_bytes() == (tmp_path / "mine.safetensors").read_bytes()
    code, out, _ = invoke("train", "--alpha", "0.25", "--res", "32", "--epochs", "1", "-o", "no/such/folder")
    assert (code, out) == (2, "")


SMALL = ("--alpha", "0.25", "--res", "32")


@pytest.fixture
def checkpoint() -> str:
    return str(weights.random(ModelSpec(alpha=0.25, resolution=32, classes=10)).path)


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let fine-tuning end after the steps that --epochs asks for."""
    for name in ("_MIN_STEPS", "_MIN_QAT_STEPS"):
        monkeypatch.setattr(f"mbbench.cli.train.{name}", 0)


@pytest.mark.usefixtures("few_steps")
def test_a_compressed_checkpoint_runs_in_int8(invoke: Invoke, tmp_path: Path, fast: str, checkpoint: str) -> None:
    code, out, err = invoke(
        "compress",
        *SMALL,
        "--weights",
        checkpoint,
        "--prune",
        "50",
        "--qat",
        "--epochs",
        "1",
        "-o",
        "half.safetensors",
    )
    assert (code, out) == (0, "half.safetensors\n")
    last_line = err.splitlines()[-1]
    assert re.fullmatch(
        r"0\.25 MobileNet-32 pruned: 0\.835 M -> 0\.414 M Mult-Adds, top-1 [\d.]+ % \[[\d., ]+\] ->"
        r" [\d.]+ % \[[\d., ]+\], [+-][\d.]+ points \[[+-][\d.]+, [+-][\d.]+\] on the 359 test images of digits",
        last_line,
    ), last_line
    run = ("run", *SMALL, "--backend", "onnxruntime", "--images", "40", "--profile", fast)
    code, out, _ = invoke(*run, "--weights", "half.safetensors", "--precision", "int8", "--require-effective")
    assert code == 0
    assert "0.25 MobileNet-32 pruned on onnxruntime" in out
    (result,) = store.read(tmp_path / "reports" / "results.jsonl")
    assert result.cost is not None and result.cost.mult_adds <= 0.5 * 0.835e6
    code, _, err = invoke("run", "--alpha", "0.5", "--res", "32", "--weights", "half.safetensors")
    assert code == 2
    assert "half.safetensors holds a MobileNet of alpha 0.25, variant standard; give --alpha 0.25" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--prune", "0"), "--prune is out of range: 0%; give more than 0% and less than 100%"),
        (("--prune", "nan"), "--prune is out of range: nan"),
        (("--prune", "50", "--max-latency", "1ms"), "--prune and --max-latency exclude each other; give one of them"),
        (
            ("--max-latency", "0ms"),
            "--max-latency is out of range: 0ms; give more than 0s and at most 86400s, such as 10ms",
        ),
        ((), "nothing to do: no compression was chosen; give --prune, --max-latency, --teacher or --qat"),
        (("--qat", "--epochs", "0"), "--epochs is out of range: 0; give 1 to 10000"),
        (("--teacher", "no-such.safetensors"), "no-such.safetensors"),
    ],
)
def test_compress_reports_bad_input_in_one_line(
    invoke: Invoke, checkpoint: str, arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = invoke("compress", *SMALL, "--weights", checkpoint, *arguments)
    assert (code, out) == (2, "")
    (line,) = (line for line in err.splitlines() if not line.endswith(" ..."))
    assert message in line


def test_backends_lists_devices_or_the_reason_a_backend_cannot_start(invoke: Invoke) -> None:
    code, out, _ = invoke("backends", "--format", "json")
    assert code == 0
    records = {record["name"]: record for record in json.loads(out)}
    assert records["onnxruntime"]["precisions"] == {"cpu": ["fp32", "int8"]}
    tensorrt = records["tensorrt"]
    if importlib.util.find_spec("tensorrt_rtx") is None:
        assert tensorrt["error"].startswith("TensorRT is not installed; run `pip install tensorrt-rtx-cu13`")
    else:
        assert set(tensorrt["versions"]) == {"tensorrt-rtx-cu13", "cuda-bindings"}
    assert (tensorrt["error"] is None) == bool(tensorrt["devices"])


def test_a_worker_offers_the_named_backends(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[tuple[str, tuple[str, ...]]] = []
    monkeypatch.setattr("mbbench.cluster.worker.serve", lambda *arguments: served.append(arguments))
    assert invoke("worker", "tls://host:8786", "--resources", "openvino, onnxruntime")[0] == 0
    assert served == [("tls://host:8786", ("openvino", "onnxruntime"))]


def test_doctor_reports_a_status_for_every_check(invoke: Invoke) -> None:
    code, out, _ = invoke("doctor", "--format", "json")
    assert code == 0
    checks = {check["name"]: check["status"] for check in json.loads(out)["checks"]}
    assert set(checks.values()) <= {"ok", "warn", "unknown"}
    assert {"load", "steal", "governor", "turbo", "cgroup quota", "memory"} <= set(checks)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--alpha", "0"), 2, "--alpha is out of range: 0; give more than 0 and at most 8, such as 0.25, "),
        (("--alpha", "-1"), 2, "--alpha is out of range: -1; "),
        (("--alpha", "nan"), 2, "--alpha is out of range: nan; "),
        (("--alpha", "99"), 2, "--alpha is out of range: 99; "),
        (("--model", "resnet"), 2, "unknown model: 'resnet'; choose one of mobilenet_v1, vgg16, googlenet"),
        (("--against", "resnet"), 2, "unknown model: 'resnet'; choose one of mobilenet_v1, vgg16, googlenet"),
        (("--model", "alexnet", "--variant", "5x5"), 2, "AlexNet has no variant '5x5'; choose one of standard"),
        (("--res", "16"), 2, "--res of MobileNet is out of range: 16 pixels; give 32 to 2048 pixels"),
        (("--model", "vgg16", "--alpha", "0.5"), 2, "VGG16 has no width multiplier"),
        (("--model", "vgg16"), 2, "VGG16-224 has no default weights; give --weights FILE"),
        (("--backend", "tensorflow"), 6, "unknown backend: 'tensorflow'; choose an installed backend ("),
        (("--backend", "onnxruntime", "--device", "gpu"), 6, "unknown device: 'gpu'; choose one of cpu"),
        (("--threads", "4000"), 2, "--threads is more than the number of available CPUs, "),
        (("--threads", "0"), 2, "--threads is out of range: 0; give 1 to 4096"),
        (("--batch", "-2"), 2, "--batch is out of range: -2 images; give 1 to 100000 images"),
        (("--profile", "fast"), 2, "unknown profile: 'fast'; choose one of ci, default"),
        (("--data", "no-such-folder"), 2, "no-such-folder"),
        (("--images", "0"), 2, "--images is out of range: 0; give 1 to 10000000"),
        (("--weights", "no-such.safetensors"), 2, "no-such.safetensors"),
        (("--results", "/dev/null/results.jsonl"), 2, "cannot write /dev/null/results.jsonl (Not a directory)"),
    ],
)
def test_bad_input_prints_one_line_and_exits_with_its_documented_code(
    invoke: Invoke, arguments: tuple[str, ...], code: int, message: str
) -> None:
    actual_code, out, err = invoke("run", *arguments)
    assert (actual_code, out) == (code, "")
    (line,) = (line for line in err.splitlines() if not line.endswith(" ..."))  # " ..." ends a line of progress
    assert line.startswith("error: ")
    assert message in line


def test_an_unknown_option_is_a_usage_error(invoke: Invoke) -> None:
    assert invoke("run", "--no-such-option")[0] == 2


@pytest.mark.parametrize(
    ("alpha", "choice", "cause"),
    [
        (0.25, "FILE", "holds mbbench's MobileNetV1 of alpha 0.25; give --model mobilenet_v1 --alpha 0.25"),
        (0.5, "FILE", "holds mbbench's MobileNetV1 of alpha 0.5; give --alpha 0.5"),
        (0.25, "timm:FILE", "holds mbbench's MobileNetV1; give --weights mine.pth"),
        (0.25, "NAN", "classifier.bias in mine.pth has NaN or infinite values: 1 of 10"),
        (0.25, "SHAPE", "stem.conv.weight in mine.pth has the wrong shape: (8, 3, 1, 1) instead of (8, 3, 3, 3)"),
    ],
)
def test_a_checkpoint_that_does_not_fit_exits_with_2_and_nothing_is_measured(
    invoke: Invoke, alpha: float, choice: str, cause: str, tmp_path: Path
) -> None:
    state = build(ModelSpec(alpha=alpha, resolution=32, classes=10)).state_dict()
    if choice == "NAN":
        state["classifier.bias"][3] = float("nan")
    if choice == "SHAPE":
        state["stem.conv.weight"] = state["stem.conv.weight"][..., :1, :1].clone()
    torch.save(state, tmp_path / "mine.pth")
    network = ("--model", "vgg16", "--res", "32") if "--model" in cause else SMALL
    path = "timm:mine.pth" if choice.startswith("timm") else "mine.pth"
    code, out, err = invoke("run", *network, "--weights", path, "--backend", "onnxruntime")
    assert (code, out) == (2, "")
    assert cause in err
    assert "Traceback" not in err and "decoding images" not in err
    assert not (tmp_path / "reports").exists()


@pytest.mark.usefixtures("few_steps")
def test_what_was_read_of_a_checkpoint_is_printed_and_recorded(invoke: Invoke, fast: str, tmp_path: Path) -> None:
    state = weights.random(ModelSpec(alpha=0.25, resolution=32, classes=10)).build().half().state_dict()
    states = ({name: torch.zeros_like(tensor) for name, tensor in state.items()}, state)
    torch.save(dict(zip(("state_dict", "state_dict_ema"), states, strict=True)), tmp_path / "[b]mine.pth")
    run = ("run", *SMALL, "--weights", "[b]mine.pth", "--images", "40", "--profile", fast, "--backend")
    notes = ("read from state_dict_ema instead of state_dict", "float16 widened to float32")
    code, out, err = invoke(*run, "onnxruntime")
    assert code == 0
    assert err.count(f"weights [b]mine.pth: {', '.join(notes)} ...\n") == 1
    assert f"Weights {', '.join(notes)}" in " ".join(out.split())
    (result,) = store.read(tmp_path / "reports" / "results.jsonl")
    assert result.weights is not None and result.weights.notes == notes
    code, _, err = invoke("compress", *SMALL, "--weights", "[b]mine.pth", "--qat")
    assert code == 0
    assert err.count(f"weights [b]mine.pth: {', '.join(notes)} ...\n") == 1


class Hostile:
    """An object that creates a folder when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pwned",)


def test_a_hostile_checkpoint_is_refused_without_being_unpickled(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"weight": Hostile()}))
    code, _, err = invoke("run", "--weights", "evil.pth")
    assert code == 2
    assert len([line for line in err.splitlines() if not line.endswith(" ...")]) == 1  # besides progress
    assert not (tmp_path / "pwned").exists()


@pytest.mark.usefixtures("faulty_backends")
def test_wrong_outputs_exit_with_5_and_are_stored(invoke: Invoke, fast: str, tmp_path: Path) -> None:
    code, out, err = invoke(*QUICK, "--profile", fast, "--backend", "faulty-nan")
    assert code == 5
    assert "No measurement was completed." in out
    assert "error: the session's outputs are not finite" in err
    (result,) = store.read(tmp_path / "reports" / "results.jsonl")
    assert result.measured.latency is None


@pytest.mark.usefixtures("faulty_backends")
def test_some_failed_cells_exit_with_7_and_the_others_are_reported(invoke: Invoke, fast: str) -> None:
    code, out, err = invoke(*QUICK, "--profile", fast, "--backend", "onnxruntime,faulty-killed")
    assert code == 7
    assert "faulty-killed failed: the measuring process was killed by the kernel" in " ".join(out.split())
    assert "error: 1 of 2 cells failed" in err


@pytest.mark.usefixtures("faulty_backends")
def test_in_a_sweep_a_cell_without_parity_among_others_exits_with_7(invoke: Invoke, fast: str) -> None:
    arguments = ("sweep", *QUICK[1:], "--profile", fast, "--backend")
    code, _, err = invoke(*arguments, "onnxruntime,faulty-nan")
    assert code == 7
    assert "error: 1 of 2 cells failed: the session's outputs are not finite" in err
    assert invoke(*arguments, "faulty-nan")[0] == 5
    assert invoke(*QUICK, "--profile", fast, "--backend", "onnxruntime,faulty-nan")[0] == 5


@pytest.mark.usefixtures("faulty_backends")
@pytest.mark.parametrize("command", ["run", "sweep"])
def test_what_a_backend_of_all_does_not_support_is_listed_and_exits_with_0(
    invoke: Invoke, fast: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "names", lambda: ("faulty-devices", "onnxruntime"))
    arguments = (command, *QUICK[1:], "--profile", fast, "--precision", "fp32,bf16", "--backend")
    code, out, err = invoke(*arguments, "all")
    assert code == 0
    assert "0.25 MobileNet-32 on onnxruntime" in out
    assert "not supported: onnxruntime bf16: onnxruntime has no native bf16 on cpu" in err
    for precision in ("fp32", "bf16"):
        assert f"not supported: faulty-devices {precision}: backend faulty-devices failed while listing its" in err
    assert "failed: " not in err and "error: " not in err
    stored = {
        (result.cell.backend, result.cell.precision): None if result.failure is None else result.failure.exit_code
        for result in store.read(tmp_path / "reports" / "results.jsonl")
    }
    assert stored == {
        ("faulty-devices", "fp32"): 6,
        ("faulty-devices", "bf16"): 6,
        ("onnxruntime", "fp32"): None,
        ("onnxruntime", "bf16"): 6,
    }
    code, _, err = invoke(*arguments, "all,faulty-devices")
    assert code == 7
    assert "failed: backend faulty-devices failed while listing its devices: RuntimeError" in err
    assert "error: 2 of 3 cells failed: backend faulty-devices" in err


def test_all_without_any_backend_that_supports_the_precision_exits_with_6(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "names", lambda: ("onnxruntime",))
    code, _, err = invoke(*QUICK, "--backend", "all", "--precision", "bf16")
    assert code == 6
    assert "error: onnxruntime has no native bf16 on cpu" in err


@pytest.mark.usefixtures("faulty_backends")
def test_a_broken_runtime_is_listed_with_its_error(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "names", lambda: ("faulty-devices", "faulty-versions", "onnxruntime"))
    code, out, _ = invoke("backends", "--format", "json")
    assert code == 0
    errors = {backend["name"]: backend["error"] for backend in json.loads(out)}
    assert "listing its devices: RuntimeError: cannot open the driver; reinstall" in errors["faulty-devices"]
    assert "reading its versions: TypeError" in errors["faulty-versions"]
    assert errors["onnxruntime"] is None


@pytest.mark.usefixtures("faulty_backends")
def test_a_file_in_a_third_partys_format_is_exported_and_measured(invoke: Invoke, fast: str, tmp_path: Path) -> None:
    network = ("--alpha", "0.25", "--res", "32", "--weights", "random")
    code, _, err = invoke("export", *network, "--to", "faulty-converter", "-o", "network.mine")
    assert (code, "network.mine written: 0.25 MobileNet-32 on faulty-converter, mine," in err) == (0, True)
    assert invoke("run", "--profile", fast, "--images", "40", "--artifact", "network.mine")[0] == 0
    (result,) = store.read(tmp_path / "reports" / "results.jsonl")
    assert result.artifact is not None and result.artifact.format == "mine"
    assert result.measured.latency is not None


def test_a_full_disk_does_not_prevent_the_report(invoke: Invoke, fast: str, monkeypatch: pytest.MonkeyPatch,
                                                   tmp_path: Path) -> None:  # fmt: skip
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, out, err = invoke(*QUICK, "--profile", fast, "--results", "/dev/full")
    assert code == 2
    assert "0.25 MobileNet-32 on onnxruntime" in out
    assert "error: cannot write /dev/full (No space left on device)" in err
    assert len(store.read(tmp_path / "mbbench-rescued.jsonl")) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_keeps_what_was_measured_and_gives_the_shells_exit_code(
    number: int, code: int, tmp_path: Path, fast: str
) -> None:
    endless = tmp_path / "endless.toml"
    endless.write_text(
        "[settings]\nmin_samples = 20\nmin_s = 0.01\nmax_s = 0.5\nthroughput_s = 600.0\nwarmup_max_s = 0.5\n"
    )
    command = [*MBBENCH, *QUICK, "--profile", str(endless)]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A process that runs in the background ignores SIGINT by default.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None:  # the throughput phase would take ten minutes
        if any('"phase":"throughput"' in path.read_text() for path in tmp_path.glob("mbbench-*/out.json")):
            break
        time.sleep(0.1)
    # Ctrl-C reaches all processes of a terminal; `kill` and CI runners signal the first.
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert "interrupted during throughput" in out
    assert "Traceback" not in err
    line = "interrupted; a part of the result in measurement is kept in reports/results.jsonl; run the command again"
    assert err.splitlines()[-1] == line
    (result,) = store.read(tmp_path / "reports" / "results.jsonl")
    assert result.measured.latency is not None
    assert result.measured.throughput is None


def test_sustain_and_idle_measure_their_curves(invoke: Invoke, fast: str) -> None:
    code, out, _ = invoke(*QUICK, "--profile", fast, "--sustain", "1s", "--idle", "16ms")
    assert code == 0
    assert "0.25 MobileNet-32 on onnxruntime, sustained load for 1.00 s" in out
    assert "0.25 MobileNet-32 on onnxruntime, calls after a pause" in out
    assert re.search(r"^16\.0 ms +\d", out, re.M)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sustain", "ten"], "error: --sustain is not a time: 'ten'; write it like 100ms, 90s, 10m or 1h"),
        (["--sustain", "0s"], "error: --sustain is out of range: 0s; give 1s to 86400s"),
        (["--idle", "5h"], "error: --idle is out of range: 5h; give 1ms to 60000ms"),
    ],
)
def test_an_invalid_time_prints_one_line(invoke: Invoke, arguments: list[str], message: str) -> None:
    code, _, err = invoke(*QUICK, *arguments)
    assert (code, err.strip()) == (2, message)


def test_calibrate_reports_the_smallest_detectable_change(invoke: Invoke) -> None:
    cell = ("--alpha", "0.25", "--res", "32", "--backend", "onnxruntime")
    code, out, _ = invoke("calibrate", *cell, "--rounds", "5", "--time", "1s", "--format", "json")
    assert code == 0
    (record,) = json.loads(out)
    assert (record["noise"]["rounds"], sorted(record["noise"]["floors"])) == (5, ["added-rss", "p50", "p99", "rss"])
    assert all(floor["detectable"] > 0 for floor in record["noise"]["floors"].values())
    assert invoke("calibrate", *cell, "--rounds", "2")[::2] == (
        2, "error: --rounds is out of range: 2; give 5 to 10000, preferably 20: fewer cannot show the spread\n",
    )  # fmt: skip
