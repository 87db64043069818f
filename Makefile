# Two commands: `make demo` runs the main job, `make test` runs every check. Each sets itself up first.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test unit lint wheel clean

demo: .venv/installed
	$(BIN)/vidray demo

test: lint unit
	$(BIN)/python -m pytest tests/end_to_end -n 2 --dist loadfile -q

unit: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit -n 2 -q

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/installed
	$(BIN)/python -m jobs.reference docs/configuration.md

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

wheel: .venv/installed-dev
	rm -rf build
	$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation -w dist .

clean:
	rm -rf .venv build dist out *.egg-info
