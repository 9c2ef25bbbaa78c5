# make demo: set up and watch the loop learn.  make test: set up and run every check.
PYTHON ?= python3
# Small matrices on few cores: BLAS threads only spin against each other.
export OPENBLAS_NUM_THREADS ?= 1
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes
UV := $(VENV)/installer/bin/uv
# A third of pip's time. pip does it where uv cannot: uv knows nothing of what pip was told about indexes and proxies.
# chdb and chdb-core both bring chdb/__init__.py; chdb's has to be there, as pip leaves it, so it goes last.
UV_INSTALL := $(UV) pip install -q --compile-bytecode --python $(BIN)/python --require-hashes
install = $(UV_INSTALL) -r $(1) && $(UV_INSTALL) --reinstall-package chdb -r $(1) || $(PIP) -r $(1)

# Every one starts brokers and stores of its own: about 3 GiB each.
TEST_PROCESSES ?= 2

.PHONY: demo test lint docs bench bench-learning soak workers evaluate faults trust setup setup-dev lock licences sbom audit clean

demo: setup
	bin/steersman demo

# Files of tests side by side, in the order of tests/conftest.py; what kills and stops processes against the clock comes after, with the machine to itself.
test: setup-dev lint
	$(BIN)/python -m pytest --ignore tests/faults -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m pytest tests/faults

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m schemas.gate

# The manual with its reference pages, which are made from the code: site/index.html. A warning is an error.
docs: setup-dev
	$(BIN)/python -m mkdocs build --strict

# About half an hour: Apache Kafka, the peers in environments of their own, results in benchmarks/results, page in benchmarks/README.md.
bench: setup-dev
	$(BIN)/python -m benchmarks; status=$$?; $(BIN)/python -m benchmarks.page && exit $$status

# About as long again: what learners, ceilings, guards and credit rules come to.
bench-learning: setup-dev
	$(BIN)/python -m benchmarks --learning; status=$$?; $(BIN)/python -m benchmarks.page && exit $$status

# Forty minutes at 5,000 events/s: memory and log of every process; results in benchmarks/results/soak.json and soak.svg.
soak: setup-dev
	$(BIN)/python -m benchmarks.soak

# 1 to 4 workers and back under load, and how much faster 4 are; results in benchmarks/results/workers.json.
workers: setup-dev
	$(BIN)/python -m benchmarks.workers

# Our learners and the peers on routing data: benchmarks/results/learning.json and plots. Stop it when you like, it goes on.
evaluate: setup-dev
	$(BIN)/python -m benchmarks.evaluation

# About two hours: kills by the hundred, outages, and plain Faust beside us; results in benchmarks/results/faults.json.
faults: setup-dev
	$(BIN)/python -m tests.faults.report

# Forged policies, planted secrets, hostile bytes, rights in Kafka; results in benchmarks/results/trust.json.
trust: setup-dev
	$(BIN)/python -m tests.trust.report

setup: $(VENV)/.demo
setup-dev: $(VENV)/.dev

$(UV): requirements/installer.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "steersman needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade --target $(VENV)/installer -r requirements/installer.txt
	touch $@

$(VENV)/.demo: requirements/demo.txt requirements/data.txt $(UV)
	$(call install,requirements/demo.txt)
	$(PIP) --no-deps -r requirements/data.txt
	touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.demo
	$(call install,requirements/dev.txt)
	touch $@

# Rewrites the hashed locks from pyproject.toml.
COMPILE = $(UV) pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header
LOCK = $(COMPILE) pyproject.toml
lock: $(UV)
	$(LOCK) --extra platform --extra embedded --extra neural --extra dev -o requirements/dev.txt
	$(LOCK) --extra platform --extra embedded -c requirements/dev.txt -o requirements/demo.txt
	$(LOCK) --extra platform -c requirements/dev.txt -o requirements/platform.txt
	$(COMPILE) requirements/release.in -o requirements/release.txt
	$(COMPILE) requirements/installer.in -o requirements/installer.txt
	$(COMPILE) benchmarks/peers/requirements-streaming.in -o benchmarks/peers/requirements-streaming.txt
	$(COMPILE) benchmarks/peers/requirements-learners.in -o benchmarks/peers/requirements-learners.txt

# docs/licences.md from the packages installed; run it after `make lock` and a fresh set-up.
licences: setup-dev
	$(BIN)/python deploy/licences.py

# For release machines. What the image holds, as CycloneDX JSON in dist/, from the hashed lock; needs internet only for the tool.
sbom: $(VENV)-release/.tools
	mkdir -p dist
	$(VENV)-release/bin/cyclonedx-py requirements requirements/platform.txt --output-reproducible --of JSON -o dist/sbom.cdx.json

# For release machines. Known vulnerabilities of what the image holds; asks PyPI over the internet, and fails where it cannot.
audit: $(VENV)-release/.tools
	$(VENV)-release/bin/pip-audit --strict --disable-pip --require-hashes -r requirements/platform.txt

$(VENV)-release/.tools: requirements/release.txt
	test -x $(VENV)-release/bin/python || $(PYTHON) -m venv $(VENV)-release
	$(VENV)-release/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/release.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-release benchmarks/.venv-* .steersman dist build site
