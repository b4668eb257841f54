VENV := .venv
PYTHON ?= python3
BACKENDS := torch onnxruntime openvino tensorrt ncnn
INSTALLED := $(VENV)/installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-all test-gpu test-mobile mobile lint clean

demo: $(INSTALLED)  ## set up, then measure 0.5 MobileNet-128 on OpenVINO, beside VGG16 and GoogLeNet
	$(VENV)/bin/mbbench run --alpha 0.5 --res 128 --backend openvino --baselines

test: $(INSTALLED)  ## set up, then run the tests
	$(VENV)/bin/python -m pytest

test-all: $(INSTALLED) mobile  ## the slow tests too, and those of LiteRT and ExecuTorch
	$(VENV)/bin/python -m pytest -m "not gpu"

test-gpu: $(INSTALLED)  ## what needs a CUDA device: the tests, and the reference run
	$(VENV)/bin/python -m pytest -m "not slow" backends/tensorrt
	$(VENV)/bin/mbbench run --alpha 0.5 --res 128 --backend tensorrt --precision fp32,fp16,bf16,int8 --baselines \
	  --results reports/reference/tensorrt.jsonl

mobile: $(INSTALLED)  ## LiteRT and ExecuTorch too, whose converters take a gigabyte
	$(VENV)/bin/pip install --quiet -c constraints.txt -e "backends/litert[convert]" -e backends/executorch

test-mobile: mobile
	$(VENV)/bin/python -m pytest backends/litert backends/executorch

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# A backend whose runtime has no build for this platform is left out; `mbbench backends` lists the others.
$(INSTALLED): pyproject.toml constraints.txt $(wildcard backends/*/pyproject.toml)
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -c constraints.txt -e ".[dev]"
	for name in $(BACKENDS); do \
	  $(VENV)/bin/pip install --quiet -c constraints.txt -e backends/$$name || echo "backend $$name was not installed"; \
	done
	touch $@

clean:
	rm -rf $(VENV)
