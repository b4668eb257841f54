VENV := .venv
PYTHON ?= python3
BACKENDS := torch onnxruntime openvino tensorrt ncnn
MEASURING := $(VENV)/measuring
INSTALLED := $(VENV)/installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-all test-gpu test-mobile mobile lint clean

demo: $(MEASURING)  ## set up, then measure 0.5 MobileNet-128, VGG16 and GoogLeNet on OpenVINO
	$(VENV)/bin/mbbench run --alpha 0.5 --res 128 --backend openvino --baselines

test: $(INSTALLED)  ## set up, then run the tests
	$(VENV)/bin/python -m pytest

test-all: $(INSTALLED) mobile  ## also run the slow tests, and those of LiteRT and ExecuTorch
	$(VENV)/bin/python -m pytest -m "not gpu"

test-gpu: $(INSTALLED)  ## run the GPU checks: tests, reference networks and gate, which need an NVIDIA GPU
	$(VENV)/bin/python tools/gpu-check/run.py --out reports/reference/gpu

mobile: $(INSTALLED)  ## install LiteRT and ExecuTorch (their converters take a gigabyte)
	$(VENV)/bin/pip install --quiet -c constraints.txt -e "backends/litert[convert]" -e backends/executorch

test-mobile: mobile  ## run the tests of LiteRT and ExecuTorch
	$(VENV)/bin/python -m pytest backends/litert backends/executorch

lint: $(INSTALLED)  ## check style, formatting and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# What measuring needs: the tools of the tests, and the other runtimes, would take four times as long.
$(MEASURING): pyproject.toml constraints.txt backends/openvino/pyproject.toml backends/onnxruntime/pyproject.toml
	@echo "installing mbbench, OpenVINO and ONNX Runtime into $(VENV) (about two minutes)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet -c constraints.txt -e . -e backends/openvino -e backends/onnxruntime
	@touch $@

# A backend that cannot be installed, because its runtime has no build for this platform, is skipped.
$(INSTALLED): $(MEASURING) $(wildcard backends/*/pyproject.toml)
	@echo "installing the other backends and the tools of the tests into $(VENV) (several minutes)"
	$(VENV)/bin/pip install --quiet -c constraints.txt -e ".[dev]"
	for name in $(BACKENDS); do \
	  $(VENV)/bin/pip install --quiet -c constraints.txt -e backends/$$name || echo "backend $$name was not installed"; \
	done
	touch $@

clean:  ## delete the virtual environment
	rm -rf $(VENV)
