# Two commands do everything on a fresh Debian or Ubuntu machine: make demo, make test.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# The lock files are complete: nothing is resolved, so that no newer release can change what is installed.
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps
OPENCV5 := .cache/opencv5
# Test files side by side; one after the other: make test JOBS=0
JOBS ?= 2
PARALLEL = --numprocesses $(JOBS) --dist loadfile
AUDIT := .cache/audit
# Whose lines are counted; all others try the product as its users have it, twice as fast.
COUNTED := tests/batch tests/cli tests/contract tests/service tests/unit

.PHONY: help demo serve bench test check lint types unit opencv5 wheel-test lock audit calibration model-card image-root clean

help:            ## what there is
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo: $(VENV)/.run   ## analyse sample pictures, or your own: make demo PHOTO=me.jpg
ifdef PHOTO
	@$(BIN)/dulian models pull standard
	@$(BIN)/dulian analyze "$(PHOTO)" --output demo-output
else
	@$(BIN)/dulian models pull standard samples
	@$(BIN)/python examples/derive_samples.py "$$($(BIN)/dulian models path samples)" .cache/demo
	@$(BIN)/dulian analyze .cache/demo --output demo-output
	@$(BIN)/dulian analyze .cache/demo --json > demo-output/answers.jsonl
endif
	@echo; echo "annotated pictures are in demo-output; your own: make demo PHOTO=me.jpg, or $(BIN)/dulian analyze --help"

test: check unit opencv5 wheel-test   ## everything CI runs

check: lint types   ## style, types, layers
lint: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks examples tools deploy
	$(BIN)/ruff format --check src tests benchmarks examples tools deploy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src
types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev   ## the test suite with coverage, under the pinned OpenCV 4
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -m "not wheel and not ray" $(PARALLEL) $(COUNTED)
	$(BIN)/python -m pytest -m "not wheel and not ray" $(PARALLEL) $(COUNTED:%=--ignore=%)
	$(BIN)/python -m coverage run -m pytest -m ray tests/batch tests/deploy
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --fail-under=90

opencv5: $(VENV)/.dev $(OPENCV5)/.done   ## what touches OpenCV, once more under OpenCV 5
	PYTHONPATH=$(OPENCV5) $(BIN)/python -m pytest -m "not wheel" $(PARALLEL) tests/unit tests/contract tests/golden \
		--ignore=tests/unit/evaluate --ignore-glob='tests/unit/test_store*'

wheel-test: $(VENV)/.dev   ## the built wheel in an empty environment
	$(BIN)/python -m pytest -m wheel tests/package

serve: $(VENV)/.run   ## the HTTP service and its web page on http://127.0.0.1:8080, or another port: make serve PORT=9000
	@$(BIN)/dulian models pull samples || echo "the page goes without sample pictures"
	@$(BIN)/dulian serve $(if $(PORT),--port $(PORT))

bench: $(VENV)/.dev   ## times of every step; compare with the run before: make bench COMPARE=1
	$(BIN)/python -m pytest benchmarks -q --benchmark-autosave --benchmark-group-by=func \
		--benchmark-columns=median,iqr,min,rounds $(if $(COMPARE),--benchmark-compare)

lock:            ## renew the hash-pinned requirements; to add to them alone: make lock KEEP=1
	$(BIN)/python tools/lock.py $(if $(KEEP),--keep)

audit: $(AUDIT)/.done   ## known vulnerabilities of what is pinned; before a release, because it asks a database on the network
	$(AUDIT)/bin/pip-audit --strict --require-hashes --disable-pip --requirement requirements/run.txt

calibration: $(VENV)/.dev   ## refit all calibration tables to labelled pictures, then renew the model card: make calibration DATA=folder
	$(BIN)/dulian evaluate --data "$(DATA)" --profile all --fit --output build/fitted
	cp build/fitted/calibration/*.json src/dulian/data/calibration/
	$(MAKE) model-card DATA="$(DATA)"

model-card: $(VENV)/.dev   ## measure all profiles on labelled pictures and renew the model card: make model-card DATA=folder
	$(BIN)/dulian evaluate --data "$(DATA)" --profile all --cross-validate --output build/evaluated
	cp build/evaluated/model-card.html src/dulian/data/

image-root:      ## the container's root file system without Docker, as root: make image-root FOLDER=folder
	deploy/docker/build-rootfs "$(FOLDER)" $(EXTRAS)

clean:
	rm -rf $(VENV) .cache demo-output dist .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks

# An environment is made once and renewed when its requirements change.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(f"dulian needs Python 3.11 or newer, this is {v[0]}.{v[1]}; try make PYTHON=python3.12" if v < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }
	@touch $@

$(VENV)/.run: $(VENV)/.made requirements/run.txt pyproject.toml
	@echo "installing the environment in $(VENV) …"
	@$(PIP) -r requirements/run.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	@$(PIP) -r requirements/dev.txt
	@touch $@

$(OPENCV5)/.done: $(VENV)/.made requirements/opencv5.txt
	@rm -rf $(OPENCV5)
	@$(PIP) --target $(OPENCV5) -r requirements/opencv5.txt
	@touch $@

$(AUDIT)/.done: requirements/release.txt
	@$(PYTHON) -m venv --clear $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/release.txt
	@touch $@
