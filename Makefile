# Every target sets up what it needs: a virtual environment in .venv, with the versions of requirements.lock.

SHELL := /bin/bash
# The first Python that TensorFlow has a build for and that can make virtual environments.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && \
	echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
# The lock constrains, pyproject.toml asks: the same pins serve the gateway alone and the whole workshop.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock

BUILD ?= podman build
IMAGES ?= models gateway model-server
TAG_PREFIX := localhost/digitgan/

.DEFAULT_GOAL := help
.PHONY: help run test lint types unit test-slow fuzz schemathesis train bench docs lock audit sbom clean \
  images kube-local kube-down kube-test

help: ## Show what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

run: $(VENV)/.run ## Set up, and start the service on the pretrained model: http://127.0.0.1:8000
	@echo "== Starting digitgan (Ctrl-C ends it)"
	@exec $(BIN)/digitgan up

test: lint types unit ## Set up, check the style and the types, and run every test that a change needs

lint: $(VENV)/.dev ## Check the style with ruff
	@echo "== Style (ruff)"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.dev
	@echo "== Types (mypy --strict)"
	@$(BIN)/mypy

# Four processes, since many tests wait; a file of tests at a time, since each file keeps its servers.
unit: $(VENV)/.dev
	@echo "== Tests (pytest): real servers on real sockets, a few minutes"
	@$(BIN)/pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

SERVER_TESTS := tests/serving/model_server tests/serving/test_roll_out.py tests/api tests/digitgan/test_up.py
test-slow: $(VENV)/.dev fuzz schemathesis ## Set up, and run what takes an hour: load, failures, leaks, fuzzing, containers
	@echo "== Slow tests (pytest)"
	@$(BIN)/pytest --ignore tests/slow/test_containers.py tests/slow
	@if command -v podman >/dev/null; then $(MAKE) kube-test; else echo "Not run: the images, for there is no podman"; fi
	@echo "== The shared suites on the real TensorFlow Serving"
	@if command -v tensorflow_model_server >/dev/null; then $(BIN)/pytest $(SERVER_TESTS); \
	  else echo "Not run: there is no tensorflow_model_server on the PATH"; fi

FUZZ_MINUTES ?= 10
fuzz: $(VENV)/.dev ## Fuzz what reads strangers' bytes: make fuzz [FUZZ_MINUTES=10]
	@echo "== Fuzzing for $(FUZZ_MINUTES) minutes (hypothesis)"
	@FUZZ_MINUTES=$(FUZZ_MINUTES) $(BIN)/pytest -s --timeout 0 tests/fuzz/test_fuzz.py

SCHEMATHESIS_EXAMPLES ?= 500
schemathesis: $(VENV)/.dev ## Hold the live service to its own OpenAPI document, 2,000 cases and more
	@SCHEMATHESIS_EXAMPLES=$(SCHEMATHESIS_EXAMPLES) $(BIN)/pytest -s tests/fuzz/test_schemathesis.py

train: $(VENV)/.dev ## Train on MNIST: make train [DATA=path/to/mnist.npz] [ARGS="--epochs 30"]
	@$(BIN)/digitgan train $(if $(DATA),--data "$$DATA") $(ARGS)

bench: $(VENV)/.dev ## Run the benchmarks, and write their tables into docs/performance.md (needs wrk)
	@$(BIN)/python -m benchmarks.gateway
	@$(BIN)/python -m benchmarks.growth
	@$(BIN)/python -m benchmarks.peers

images: ## Build the images gateway, models and model-server: make images [BUILD="docker build"] [IMAGES=trainer]
	@for target in $(IMAGES); do \
	  echo "== Building $(TAG_PREFIX)$$target"; \
	  $(BUILD) --target $$target --tag $(TAG_PREFIX)$$target:latest \
	    --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) . || exit 1; \
	done

kube-local: images ## Build, and play k8s/overlays/local with podman: http://127.0.0.1:8000
	@k8s/local.sh up

kube-down: ## End what kube-local started
	@k8s/local.sh down

kube-test: images $(VENV)/.dev ## Build, and test the images and k8s/overlays/local with podman
	@$(BIN)/pytest tests/slow/test_containers.py

docs: $(VENV)/.dev ## Write docs/reference.md anew, from the code
	@$(BIN)/python -m docs.reference

lock: ## Write requirements.lock anew, with the newest versions that fit pyproject.toml
	@echo "== Resolving the newest versions"
	@rm -rf .lock-venv && $(PYTHON) -m venv .lock-venv
	@.lock-venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' hatchling editables
	@{ echo "# The tested versions of everything, for Python 3.11 and later. Made by: make lock"; \
	   .lock-venv/bin/python -m pip freeze --exclude-editable; } > requirements.lock
	@rm -rf .lock-venv

audit: .audit/.created ## Look the locked versions up among the published advisories (needs a network)
	@echo "== Advisories about requirements.lock (pip-audit)"
	@.audit/bin/pip-audit --strict --requirement requirements.lock --no-deps --disable-pip --progress-spinner off

sbom: .audit/.created ## Write the bill of materials of requirements.lock: build/sbom.cdx.json (CycloneDX)
	@mkdir -p build
	@.audit/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --mc-type application \
	  --output-reproducible --output-format JSON --validate --output-file build/sbom.cdx.json
	@echo "== Written: build/sbom.cdx.json"

clean: ## Remove the virtual environment and the caches
	@rm -rf $(VENV) .audit .hypothesis .pytest_cache .mypy_cache .ruff_cache build dist

# Tools that look at the product and are no part of it, in an environment of their own.
.audit/.created: Makefile
	@echo "== Installing pip-audit and cyclonedx-bom in .audit"
	@$(PYTHON) -m venv .audit
	@.audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1 cyclonedx-bom==7.5.0
	@touch $@

$(VENV)/.created:
	@[ -n "$(PYTHON)" ] || { echo "digitgan needs Python 3.11, 3.12 or 3.13 with its venv module (on Debian: the" \
	  "package python3-venv). Install one, or name it: make PYTHON=/path/to/python"; exit 1; }
	@echo "== Making a virtual environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.created pyproject.toml requirements.lock
	@echo "== Installing the gateway, the model server and the client"
	@$(PIP_INSTALL) --editable '.[client,gateway,model-server]'
	@touch $@

$(VENV)/.dev: $(VENV)/.created pyproject.toml requirements.lock
	@echo "== Installing everything, with the test tools (TensorFlow is large: a few minutes the first time)"
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.run
