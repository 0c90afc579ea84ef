# Two commands on a fresh machine: `make drill` and `make test`. Both set up what they need.

PYTHON  ?= python3
WORKERS ?= 2
ARGS    ?=

BIN := .venv/bin

# An image that forbids .pyc files would make every command start twice as slowly.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup drill up down image bench test test-unit lint lock clean

help:
	@echo 'make drill      set up, then break the staging platform in all four ways and get it back'
	@echo 'make up         set up, then the staging platform with Prefect: server, workers, UI'
	@echo 'make down       end what make up started'
	@echo 'make image      Lifeboat'"'"'s own image for docker-compose.yml (docs/containers.md)'
	@echo 'make test       set up, then run all tests'
	@echo 'make bench      Lifeboat beside what people would use instead: bench/RESULTS.md'
	@echo 'make test-unit  only those that need no other program'
	@echo 'make lint       style, and who may import whom'
	@echo 'make setup      .venv from requirements.lock, and restic; in no time when it is there'
	@echo 'make lock       write requirements.lock anew (UPGRADE=1: with the newest versions)'
	@echo 'make clean      stop the staging stack; remove .venv, .lifeboat (with the reports of'
	@echo '                its drills and the restic that was fetched) and all caches'
	@echo
	@echo 'ARGS="..." is handed on:  make drill ARGS=--help   make test ARGS="-k wal"'
	@echo 'PYTHON=... names the Python to build .venv with, 3.11 to 3.14 (another one: make clean first)'

setup:
	@command -v $(PYTHON) >/dev/null || { \
	  echo 'Cannot set up Lifeboat: there is no $(PYTHON).'; \
	  echo 'Debian, Ubuntu: apt-get install python3 python3-venv'; exit 1; } >&2
	@$(PYTHON) -B scripts/bootstrap.py

drill: setup
	@$(BIN)/lifeboat drill $(ARGS)

up: setup
	@$(BIN)/lifeboat up $(ARGS)

down: setup
	@$(BIN)/lifeboat down $(ARGS)

image:
	@compose=$$($(PYTHON) -B scripts/fetch_compose.py) && \
	  $$compose --file docker-compose.build.yml build $(if $(ARGS),$(ARGS),lifeboat)

bench: setup
	@$(BIN)/python -m bench $(ARGS)

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

test-unit: setup
	$(BIN)/python -m pytest tests/unit $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache

lock: setup
	@$(BIN)/python -B scripts/write_lock.py $(if $(UPGRADE),--upgrade)

clean:
	@$(PYTHON) -B scripts/leftovers.py
