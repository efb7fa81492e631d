# `make help` lists what there is to make.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PEERS  := $(VENV)/peers/.made

# Settings of `make run` may stand on its command line: make run PORT=8001
export PORT DATABASE_URL SOURCES_FILE SECRETS_FILE PROCESSORS
# What answers the question of `make destroy`: CONFIRM=prod
export CONFIRM

DEPLOYMENT = $(BIN)/python -m deployment

.PHONY: help
help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: $(STAMP) ## Run the whole system here: PostgreSQL, the emulated AWS, the API and the processor
	@exec $(BIN)/python -m devstack

.PHONY: services
services: $(STAMP) ## Run everything but the API, for `.venv/bin/chalice local` in another terminal
	@exec $(BIN)/python -m devstack --services

.PHONY: package
package: $(STAMP) ## Package a stage for CloudFormation, into dist/: make package STAGE=prod
	@exec $(DEPLOYMENT) package --stage "$(STAGE)"

.PHONY: deploy
deploy: $(STAMP) ## Package a stage, deploy it as one stack, migrate the database: make deploy STAGE=prod
	@exec $(DEPLOYMENT) deploy --stage "$(STAGE)"

.PHONY: rollback
rollback: $(STAMP) ## Bring back the release before a stage's last one: make rollback STAGE=prod
	@exec $(DEPLOYMENT) rollback --stage "$(STAGE)"

.PHONY: destroy
destroy: $(STAMP) ## Delete a stage's stack, and say what is kept: make destroy STAGE=dev
	@exec $(DEPLOYMENT) destroy --stage "$(STAGE)"

.PHONY: native
native: $(STAMP) ## Create what Chalice does not, and configure a stage for `chalice deploy`: make native STAGE=dev
	@exec $(DEPLOYMENT) native --stage "$(STAGE)"

.PHONY: migrate
migrate: $(STAMP) ## Migrate the database of a deployed stage: make migrate STAGE=dev
	@exec $(DEPLOYMENT) migrate --stage "$(STAGE)"

.PHONY: partial-responses
partial-responses: $(STAMP) ## After `chalice deploy`: retry only the failed events of a batch: make partial-responses STAGE=dev
	@exec $(DEPLOYMENT) partial-responses --stage "$(STAGE)"

# Whole files to each of the processes; what they have in common stays in one (tests/conftest.py).
IN_PARALLEL = -n $(TEST_PROCESSES) --no-loadscope-reorder
TEST_PROCESSES ?= 5

.PHONY: test
test: $(STAMP) ## Run every test, before a pull request: make test ARGS="-k ledger"
	$(BIN)/python -m pytest -q $(IN_PARALLEL) $(ARGS)

.PHONY: test-quick
test-quick: $(STAMP) ## Run the tests that neither deploy nor run the whole system, while you work
	$(BIN)/python -m pytest -q $(IN_PARALLEL) tests/integration tests/unit $(wildcard tests/team) $(ARGS)

# The oldest PostgreSQL that is supported (chalicelib/postern/adapters/migrations.py), as Debian 12 has it.
OLDEST_POSTGRES ?= /usr/lib/postgresql/15/bin
# What of the tests asks the database most.
OF_THE_DATABASE = $(addprefix tests/integration/test_,counts.py databases_as_they_are.py dry_run.py duplicates.py \
  ledger.py migrations.py processing.py quiet.py replays.py searching.py storage.py)

.PHONY: test-oldest
test-oldest: $(STAMP) ## Run the database's tests on the oldest PostgreSQL that is supported
	POSTERN_POSTGRES=$(OLDEST_POSTGRES) $(BIN)/python -m pytest -q $(IN_PARALLEL) $(OF_THE_DATABASE) $(ARGS)

.PHONY: day
day: $(STAMP) ## Ten thousand deliveries through the running system, with repetitions, failures and their fix
	POSTERN_EVENTS=10000 $(BIN)/python -m pytest -q tests/acceptance/test_a_day.py --timeout 1800

.PHONY: hostile
hostile: $(STAMP) ## A million hostile deliveries over all providers, by chance: POSTERN_SEED repeats a run
	POSTERN_HOSTILE=1000000 POSTERN_SEED=$${POSTERN_SEED:-$$(date +%s)} $(BIN)/python -m pytest -q $(IN_PARALLEL) tests/unit/test_hostile.py --timeout 1800

.PHONY: chaos
chaos: $(STAMP) ## Faults of every kind over the whole local system, and whether every promise was kept: SEED=… repeats a run
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: chaos-long
chaos-long: $(STAMP) ## The same for an hour, with more than a hundred thousand events
	$(BIN)/python -m tests.chaos --seconds 3300 $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: soak
soak: $(STAMP) ## An hour of calm traffic: what grows? make soak ARGS="--seconds 600"
	$(BIN)/python -m tests.chaos --soak --seconds 3600 --rate 30 $(ARGS)

.PHONY: crash-points
crash-points: $(STAMP) ## Kill the process at every statement, commit and call, and print what came of it (one minute)
	$(BIN)/python -m tests.chaos.crash_points

.PHONY: mutants
mutants: $(STAMP) ## Break Postern in one line, eighteen times, and see which test notices (four minutes)
	$(BIN)/python -m tests.chaos.mutants

.PHONY: rehearsal
rehearsal: $(STAMP) ## Follow docs/first-handler.md word by word, on a clone of the last commit (five minutes)
	$(BIN)/python -m tests.rehearsal

.PHONY: bench
bench: $(PEERS) ## Measure by turns, and print one table of ratios: make bench ONLY=upsert
	$(BIN)/python -m bench $(ONLY)
	$(if $(ONLY),,$(BIN)/python -m bench.providers && $(BIN)/python -m bench.processing && $(BIN)/python -m bench.curves)

.PHONY: curves
curves: $(PEERS) ## Measure and draw latency by rate, round trips, cost, ten thousand a second: docs/performance.md
	$(BIN)/python -m bench.curves

.PHONY: check
check: $(STAMP) ## Check format, lint, types, import directions, and what is generated
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive app.py chalicelib cli deployment devstack bench
	$(BIN)/python -m pytest -q tests/unit/test_imports.py tests/unit/test_console.py
	$(BIN)/python -m cli.catalogue --check docs/providers.md
	$(BIN)/python -m cli.description --check chalicelib/postern/api/openapi.json

.PHONY: format
format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: providers
providers: $(STAMP) ## Write docs/providers.md from the catalogue
	$(BIN)/python -m cli.catalogue --write docs/providers.md

.PHONY: openapi
openapi: $(STAMP) ## Write the API's description from its schemas
	$(BIN)/python -m cli.description chalicelib/postern/api/openapi.json

.PHONY: venv
venv: $(STAMP) ## Make the virtual environment with everything in it

$(PEERS): $(STAMP) bench/requirements.txt
	@echo "Installing what is measured beside Postern in $(VENV)/peers (once) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --target $(VENV)/peers -r bench/requirements.txt
	@touch $@

# The team's own packages, where it has some: docs/handlers.md.
TEAMS_REQUIREMENTS = $(wildcard requirements-handlers.in)

$(STAMP): requirements.txt requirements-dev.txt requirements-libraries.txt $(TEAMS_REQUIREMENTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Postern needs Python 3.11 or newer, and '$(PYTHON)' is not that: make run PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "This Python cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m deployment.requirements || true  # said here, and refused by `make package`
	@echo "Making the virtual environment in $(VENV) (once, about a minute) …"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-libraries.txt
	@# By way of the shell: the first line of a script has no room for a path with a blank.
	@printf '#!/bin/sh\nexec "%s" -P -c "%s" "%s" "$$@"\n' "$(CURDIR)/$(BIN)/python" \
	  'import sys; sys.path.insert(0, sys.argv.pop(1)); from cli.main import main; sys.exit(main())' "$(CURDIR)" \
	  > $(BIN)/postern
	@chmod +x $(BIN)/postern
	@touch $@

UV   = 0.13.9
LOCK = $(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
  --custom-compile-command "make lock"

.PHONY: lock
lock: ## Compile requirements.in, requirements-dev.in and your requirements-handlers.in to what is installed
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/pip install --quiet uv==$(UV)
	$(LOCK) --generate-hashes --no-annotate requirements.in $(TEAMS_REQUIREMENTS) -o requirements.txt
	$(LOCK) --annotation-style line requirements-dev.in $(TEAMS_REQUIREMENTS) -o requirements-dev.txt
	$(LOCK) --annotation-style line bench/requirements.in -c requirements-dev.txt -o bench/requirements.txt

.PHONY: clean
clean: ## Remove the virtual environment and all local data
	rm -rf $(VENV) .local
