# Everything a newcomer or CI types. `make` alone explains.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
PYTHON ?= python3
COMPOSE := docker compose
# Where to read raw files from; without it, `make run` generates sample data.
DATA ?=
# More arguments for pytest, e.g. make test ARGS='-k ledger'
ARGS ?=

.PHONY: help setup setup-dev setup-airflow run psql up down logs ps trigger test-stack test services test-fast test-faults check lint format typecheck audit package bench lock lock-jars clean distclean

help: ## Show this list
	@echo 'user-analytics: raw files to a star schema in PostgreSQL'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv with pinned packages, Java 17 and Spark's jars (done by the other targets, too)
	@scripts/setup.sh

setup-dev:
	@scripts/setup.sh dev

setup-airflow: setup-dev
	@scripts/setup.sh airflow

run: setup ## Run everything on sample data, or on your files: make run DATA=folder
	@$(BIN)/user-analytics run $(if $(DATA),--data "$(DATA)",--sample)

psql: setup ## Open the warehouse that `make run` filled
	@$(BIN)/user-analytics psql

up: ## Start the whole stack with Docker Compose: MinIO, PostgreSQL, Spark, Airflow
	@$(PYTHON) scripts/stack.py settings
	GIT_REVISION=$$(git describe --always --abbrev=12 --dirty '--exclude=*' 2>/dev/null) $(COMPOSE) up --build --detach --wait --wait-timeout 900
	@$(PYTHON) scripts/stack.py addresses

trigger: ## Run the DAG user_analytics in the stack and follow it to its end
	@$(PYTHON) scripts/stack.py trigger $(DAG)

ps: ## How the stack's services are
	@$(COMPOSE) ps

logs: ## Follow the stack's logs; of one service: make logs SERVICE=airflow-scheduler
	@$(COMPOSE) logs --tail 100 --follow $(SERVICE)

down: ## Stop the stack; its data stays. make down VOLUMES=yes removes that, too
	$(COMPOSE) down $(if $(VOLUMES),--volumes)

test-stack: setup-dev ## Build, start, use and remove a stack of its own; needs a Docker engine
	$(BIN)/python -m pytest tests/stack -s $(ARGS)

test: setup-dev ## Lint, types, SQL format, then all tests, with coverage
	@$(MAKE) --no-print-directory --jobs 3 setup-airflow services check
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term $(ARGS)

test-fast: setup-dev ## Tests that need no service
	$(BIN)/python -m pytest -m 'not integration and not faults' $(ARGS)

test-faults: setup-dev ## Kill every job at every write, by exceptions and by SIGKILL, and compare with clean runs
	$(BIN)/python -m pytest tests -m faults -s $(ARGS)

# What the tests' services are made of; they would see to it themselves, one after the other.
services: setup-dev
	@$(BIN)/python -m tests.install_services

check: lint typecheck

lint: setup-dev ## Ruff and the SQL format
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python scripts/check_sql.py sql views

format: setup-dev ## Rewrite Python and SQL in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python scripts/check_sql.py --fix sql views

typecheck: setup-dev ## Strict mypy
	$(BIN)/mypy

audit: setup-dev ## Ask the advisory service about every pinned package
	@$(BIN)/python scripts/audit.py

package: setup ## Pack the code for clusters: dist/user-analytics.zip, for spark-submit --py-files
	@$(BIN)/python scripts/package.py

bench: ## Benchmarks against other ways to do the work; results go to docs/
	@scripts/setup.sh bench
	$(BIN)/python -m benchmarks $(ARGS)

lock: setup ## Resolve requirements*.in anew into requirements*.txt, with hashes
	@scripts/lock.sh

lock-jars: setup ## Rewrite jars/SHA256SUMS after an edit of jars/ivy.xml
	@$(BIN)/python jars/fetch.py --update

clean: ## Remove what `make run` made: var/
	@if [ -d var/warehouse ]; then $(BIN)/python -c "from pathlib import Path; from jobs.warehouse.embedded \
	  import EmbeddedPostgres; EmbeddedPostgres(Path('var/warehouse')).shut_down()" || true; fi
	rm -rf var spark-warehouse metastore_db derby.log

distclean: clean ## Remove .venv and all caches of the project, too
	rm -rf .venv .venv-airflow .setup.lock build dist *.egg-info .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
