# make demo   install what the demo needs, compile the demo network, classify real digits
# make test   the test suite
# make test-slow   what takes too long for every change
# make test-peers  recorded outputs of PyTorch computed anew, in an environment of its own
# make lint   ruff and mypy
# make venv   a development environment in .venv
# Any Python from 3.11 on will do: make test PYTHON=/path/to/python3.12

VENV   ?= .venv
PY     := $(VENV)/bin/python
PIP     = $(PY) -m pip --disable-pip-version-check install --quiet
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
            $$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
            && echo $$p && break; done)
PYTEST_ARGS ?= -q -n auto

.PHONY: demo test test-slow test-peers lint venv emulators clean

demo: $(VENV)/.demo
	$(PY) demo/demo.py

test: $(VENV)/.dev emulators
	$(PY) -m pytest $(PYTEST_ARGS) -m "not slow"

test-slow: $(VENV)/.dev emulators
	$(PY) -m pytest $(PYTEST_ARGS) -m slow

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

test-peers: $(VENV)-torch/.made
	$(VENV)-torch/bin/python tests/peers/record_torch.py --check

$(VENV)-torch/.made: | $(PY)
	$(PY) -m venv $(VENV)-torch
	$(VENV)-torch/bin/python -m pip --disable-pip-version-check install --quiet torch==2.13.0 numpy
	@touch $@

venv: $(VENV)/.dev

$(PY):
	@test -n "$(PYTHON)" || { echo "Onefold needs Python 3.11 or newer: make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps make a second run start at once; they expire when the requirements change.
$(VENV)/.demo: pyproject.toml | $(PY)
	$(PIP) -e '.[check,images]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(PY)
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.demo

# Tests for other machines run in QEMU and some by GCC where they are installed, and say that they
# skip where they are not; in CI they must run. A CI machine that lets us install packages gets
# both.
emulators:
ifeq ($(CI),true)
	@if command -v qemu-aarch64 >/dev/null && command -v qemu-system-arm >/dev/null \
	    && command -v gcc >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends \
	      qemu-user qemu-system-arm gcc libc6-dev >/dev/null; \
	else echo "QEMU or GCC is missing and cannot be installed here: their tests will fail"; fi
else
	@command -v qemu-aarch64 >/dev/null && command -v qemu-system-arm >/dev/null \
	  || echo "QEMU is missing (apt-get install qemu-user qemu-system-arm): its tests will be skipped"
endif

clean:
	rm -rf $(VENV) $(VENV)-torch build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
