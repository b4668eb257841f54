VENV := .venv
PYTHON ?= python3
BACKENDS := torch onnxruntime openvino ncnn
MEASURING := $(VENV)/measuring
INSTALLED := $(VENV)/installed
HAS_DRIVER := $(wildcard /proc/driver/nvidia)$(shell command -v nvidia-smi 2>/dev/null)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# uv where present, else pip
ifeq ($(shell command -v uv 2>/dev/null),)
INSTALLER := pip
CREATE = $(PYTHON) -m venv
INSTALL = $(VENV)/bin/pip install --quiet -c constraints.txt
else
INSTALLER := uv
SOURCES = $(shell $(PYTHON) tools/uv_sources.py)
CREATE = uv venv --quiet --seed --allow-existing --python $(PYTHON) $(SOURCES)
INSTALL = uv pip install --quiet --compile-bytecode --python $(VENV) $(SOURCES) -c constraints.txt
endif

.PHONY: demo test test-all test-gpu test-mobile mobile tensorrt lint wheels clean

demo: $(MEASURING)  ## set up, then measure 0.5 MobileNet-128, VGG16 and GoogLeNet on OpenVINO
	$(VENV)/bin/mbbench run --alpha 0.5 --res 128 --backend openvino --baselines

test: $(INSTALLED)  ## set up, then run the tests
	$(VENV)/bin/python -m pytest

test-all: $(INSTALLED) mobile  ## also run the slow tests, and those of LiteRT and ExecuTorch
	$(VENV)/bin/python -m pytest -m "not gpu"

test-gpu: $(INSTALLED)  ## run the GPU checks: tests, reference networks and gate, which need an NVIDIA GPU
	$(VENV)/bin/python tools/gpu-check/run.py --out reports/reference/gpu

tensorrt: $(INSTALLED)  ## install TensorRT-RTX without an NVIDIA driver too: it builds engines, and tests of that run
	@echo "installing TensorRT-RTX into $(VENV) with $(INSTALLER) (230 MB)"
	@$(INSTALL) -e "backends/tensorrt[rtx]"

mobile: $(INSTALLED)  ## install LiteRT and ExecuTorch (their converters take a gigabyte)
	@echo "installing LiteRT, ExecuTorch and their converters into $(VENV) with $(INSTALLER) (several minutes)"
	@$(INSTALL) -e "backends/litert[convert]" -e backends/executorch

test-mobile: mobile  ## run the tests of LiteRT and ExecuTorch
	$(VENV)/bin/python -m pytest backends/litert backends/executorch

lint: $(INSTALLED)  ## check style, formatting and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

wheels: | $(VENV)/bin/python  ## build the wheels of mbbench and its backends into dist/
	@$(INSTALL) hatchling
	@rm -f dist/mbbench*.whl
	@for folder in . $(dir $(wildcard backends/*/pyproject.toml)); do \
	  (cd $$folder && $(CURDIR)/$(VENV)/bin/python -m hatchling build --target wheel --directory $(CURDIR)/dist) || exit; \
	done

$(VENV)/bin/python:
	@$(CREATE) $(VENV)

# What measuring needs: the tools of the tests, and the other runtimes, would take four times as long.
$(MEASURING): pyproject.toml constraints.txt backends/openvino/pyproject.toml backends/onnxruntime/pyproject.toml | $(VENV)/bin/python
	@echo "installing mbbench, OpenVINO and ONNX Runtime into $(VENV) with $(INSTALLER) (about two minutes, only once)"
	@$(INSTALL) -e . -e backends/openvino -e backends/onnxruntime
	@touch $@

# A backend that cannot be installed, because its runtime has no build for this platform, is skipped. TensorRT-RTX is
# installed where an NVIDIA driver is: without it, the backend's tests of real engines are skipped.
$(INSTALLED): $(MEASURING) $(wildcard backends/*/pyproject.toml)
	@echo "installing the other backends and the tools of the tests into $(VENV) with $(INSTALLER) (several minutes)"
	@$(INSTALL) -e ".[dev]"
	@for backend in $(BACKENDS) "tensorrt$(if $(HAS_DRIVER),[rtx])"; do \
	  $(INSTALL) -e "backends/$$backend" || echo "backend $$backend was not installed"; \
	done
	@touch $@

clean:  ## delete the virtual environment
	rm -rf $(VENV)
