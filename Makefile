# What one does here. All is installed into .venv, and compiled modules lie in cyroialign/_kernels: nothing
# leaves this folder, but what asv notes of this machine: ~/.asv-machine.json. ARGS is handed on:
# make demo ARGS="street.jpg --box 40,60,310,420"

PYTHON = python3
BIN = .venv/bin
SECONDS = 60
# Tests that no SIMD level changes.
ABOVE = bench bench_honest bench_map bench_plots busy cluster command_line command_output contract docs examples \
	faults figures hostile imports make server suites
LOWER = 'import cyroialign; print(*cyroialign.show_config(as_dict=True)["simd_levels"][:-1])'

.PHONY: help demo test levels emulated heavy fuzz soak sanitize lint docs bench asv wheel wheels clean
.DELETE_ON_ERROR:

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/with-demo  ## install, crop boxes out of a photograph and draw cyroialign-demo.png
	$(BIN)/cyroialign demo $(ARGS)

test: .venv/with-test  ## install what tests need, and run them; ARGS="-x -k bits" chooses
	$(BIN)/python -m pytest $(ARGS)

levels: .venv/with-test  ## run the tests of the kernels at each SIMD level but the best, which test takes
	for level in $$($(BIN)/python -c $(LOWER)); do \
	CYROIALIGN_SIMD=$$level $(BIN)/python -m pytest $(ABOVE:%=--ignore=tests/test_%.py) $(ARGS) || exit; done

emulated:  ## build, and run the tests of the kernels, on arm64: emulated, as root
	.ci/emulated $(ABOVE:%=--ignore=tests/test_%.py) $(ARGS)

heavy: .venv/with-test  ## run the tests that need 20 GB of memory
	$(BIN)/python -m pytest -m heavy $(ARGS)

fuzz: .venv/with-test  ## check random hostile calls for SECONDS=60; ARGS="--first 5000000 --record"
	$(BIN)/python tests/fuzz.py --seconds $(SECONDS) $(ARGS)

soak: .venv/with-test  ## threads, forks and interrupts for SECONDS=60, and leaks of ARGS="--calls 100000"
	$(BIN)/python tests/soak.py --seconds $(SECONDS) $(ARGS)

sanitize:  ## promises, SECONDS=60 of fuzz at each level and of soak, built with sanitizers; ARGS=thread
	.ci/sanitize $(SECONDS) $(ARGS)

lint: .venv/with-dev  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint src
	$(BIN)/mypy
	$(BIN)/zizmor --offline --quiet .github

docs: .venv/with-docs  ## build the site: docs/_build/html/index.html
	$(BIN)/python -m sphinx -W -n -q -b html docs docs/_build/html

bench: .venv/with-bench  ## time RoIAlign beside the other libraries in .venv; ARGS=--quick is a first look
	$(BIN)/cyroialign bench $(ARGS)

asv: .venv/with-bench  ## check the suites of benchmarks and run those that ARGS chooses once, as CI does
	cd benchmarks && ../$(BIN)/asv machine --yes && ../$(BIN)/asv check --python=same
	cd benchmarks && ../$(BIN)/asv run --quick --python=same --set-commit-hash "$$(git rev-parse HEAD)" \
	$(if $(ARGS),$(ARGS),--bench LatencyForward)

wheel: .venv/built  ## make a source archive, and of it a wheel, in dist
	$(BIN)/pip install build
	$(BIN)/python -m build

wheels:  ## make and test one for each Python here; PYTHONS="python3.13" chooses, WHOLE=1 runs all tests
	.ci/wheels

clean:  ## remove all of it
	rm -rf .venv build dist docs/_build docs/_drawn *.egg-info cyroialign/_kernels/*.so

$(BIN)/pip:
	$(PYTHON) -m venv .venv

# Compiled once, and again when a source has changed.
.venv/built: setup.py pyproject.toml cyroialign/_version.py $(shell find src -type f) | $(BIN)/pip
	$(BIN)/pip install -e .
	touch $@

# The package is there by now, so that pip adds what an extra names and builds nothing.
.venv/with-%: .venv/built
	$(BIN)/pip install "cyroialign[$*]"
	touch $@
