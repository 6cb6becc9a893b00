# The whole set of habits. `make setup` is the only way that tests and CI install anything.
PYTHON ?= python3
# Two more than two cores: tests with a Ray cluster or with processes of their own wait much of the time.
JOBS ?= 4
BIN := .venv/bin
STAMP := .venv/.installed
export OMP_NUM_THREADS ?= 1

.PHONY: setup study test test-oldest check bench docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "FieldShift needs Python 3.11 or newer; set PYTHON=..." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (a few minutes and about 7 GB the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e ".[dev]"
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true # in parallel, once; some packages ship templates that are no Python
	@touch $(STAMP)

study: setup
	$(BIN)/fieldshift study --out runs/study --resume

test: setup
	$(BIN)/python -m pytest -n $(JOBS)

# The lowest versions that pyproject.toml allows, in an environment of their own; the tools are the newest ones.
test-oldest:
	@test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	$(PYTHON) .ci/lower_bounds.py > .venv-oldest/lower-bounds.txt
	@echo "installing into .venv-oldest (some minutes and about 7 GB the first time)"
	@.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-oldest/lower-bounds.txt -e ".[dev]"
	.venv-oldest/bin/python -m pytest -n $(JOBS) -m "not cluster" -W default

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks/*.py benchmarks/studies/*.py
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python benchmarks

docs: setup
	@PYTHONPATH=platform:. NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "site/index.html"

clean:
	rm -rf .venv .venv-oldest runs site dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
