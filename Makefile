# What a developer and CI need: `make run`, `make test`, `make bench`. Wants Python 3.11 or newer, git, make, and the
# package registries; everything else is installed, once.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= etc/config.yaml
PYTEST_ARGS ?= -n 2 --dist loadfile
export PATH := $(abspath $(BIN)):$(PATH)

PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# An editable install in strict mode is a tree of links, so it is made again when a module comes or goes.
MODULES := $(shell { find gateway plugins -name '*.py' | LC_ALL=C sort; cat pyproject.toml setup.cfg; } | cksum | cut -d' ' -f1)
INSTALLED := $(VENV)/.installed-$(MODULES)
LOCKED := $(VENV)/.locked-$(shell cksum < requirements.lock | cut -d' ' -f1)
DEV := $(VENV)/.dev-$(shell cksum < requirements-dev.lock | cut -d' ' -f1)
KEYS := var/dev.secret var/dev.apikey

.PHONY: run test check format types unit contract system packaging coverage bench lock servers clean

run: $(INSTALLED) $(KEYS)
	@printf '%s\n' \
		'The gateway starts with $(CONFIG); Ctrl-C ends it. From a second shell, in this folder:' \
		'  a token:   $(BIN)/ws-gateway token --sub alice --topics notifications' \
		'  a record:  $(BIN)/ws-gateway publish notifications '\''{"user_id":"alice","text":"hi"}'\'
	@WSGATEWAY_LOGGER_FORMAT=$${WSGATEWAY_LOGGER_FORMAT:-text} exec $(BIN)/python -m gateway -c $(CONFIG)

# Everything that CI runs, in the order in which it fails fastest.
test: check types servers $(KEYS)
	@rm -f .coverage .coverage.*
	$(BIN)/python -m pytest $(PYTEST_ARGS) --cov --cov-report= tests
	@$(MAKE) --no-print-directory coverage

check: $(DEV) $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(DEV) $(INSTALLED)
	$(BIN)/mypy

unit contract system packaging: $(DEV) $(INSTALLED) servers $(KEYS)
	$(BIN)/python -m pytest $(PYTEST_ARGS) tests/$@

# After a run of the tests with --cov.
coverage:
	@$(BIN)/coverage report --include='gateway/core/*,gateway/services/*' --fail-under=95
	@$(BIN)/coverage report --fail-under=90

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(DEV) $(INSTALLED) servers
	$(BIN)/python -m bench

# Java and Maven for the broker of the tests, promtool, Node.js: installed where this may be done (root, apt).
servers: $(VENV)/bin/python
	@sh tests/support/servers.sh $(abspath $(BIN))

lock: $(DEV)
	$(PIP) install pip-tools
	$(BIN)/pip-compile $(LOCK_OPTIONS) --extra client -o requirements.lock pyproject.toml
	$(BIN)/pip-compile $(LOCK_OPTIONS) -c requirements.lock --extra dev --extra bench -o requirements-dev.lock pyproject.toml

# No address of a registry gets into the lock files: they hold for whichever the machine uses.
LOCK_OPTIONS := --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host

$(VENV)/bin/python:
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is needed; name it with PYTHON=...' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(LOCKED): $(VENV)/bin/python
	$(PIP) install --require-hashes -r requirements.lock
	@rm -f $(VENV)/.locked-* && touch $@

$(INSTALLED): $(LOCKED)
	@rm -rf build
	$(PIP) install --no-deps --editable .
	@rm -f $(VENV)/.installed-* && touch $@

$(DEV): $(LOCKED)
	$(PIP) install --require-hashes -r requirements-dev.lock
	@rm -f $(VENV)/.dev-* && touch $@

$(KEYS):
	@mkdir -p var && umask 077 && $(BIN)/python -c 'import secrets; print(secrets.token_hex(32))' > $@

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
