# Every target works on a fresh machine with Python 3.11+ and a C++ compiler; each sets up .venv first if it must.
# PYTHON=/path/to/python3 chooses the Python; BASE=starter has the demo tune a small base of ours.

# The first of these that really starts (a version manager may list names that do not).
starts = $(shell $(1) -c 'import sys; print(sys.executable)' 2>/dev/null)
PYTHON ?= $(or $(call starts,python3.13),$(call starts,python3.12),$(call starts,python3.11),$(call starts,python3))
IN_VENV = .venv/bin/python -m

.PHONY: setup demo test test-slow check

setup:
	@python="$(PYTHON)"; \
	if ! command -v "$${python:-none}" >/dev/null; then \
		echo "setup: no Python found$${python:+ as $$python}; install python3 and python3-venv (Debian's names)" >&2; \
		exit 1; \
	fi; \
	"$$python" scripts/setup.py

demo: setup
	@echo "demo: data, training, export, flash, run and evaluation; 15 to 30 minutes on 2 cores"
	@.venv/bin/edgewright demo $(if $(BASE),--base $(BASE))

test: setup
	@echo "test: the fast tests; about 12 minutes on 2 cores"
	@$(IN_VENV) pytest -n 2 --dist loadfile

test-slow: setup
	@$(IN_VENV) pytest -m slow

check: setup
	@$(IN_VENV) ruff format --check .
	@$(IN_VENV) ruff check .
	@$(IN_VENV) mypy
