# `make demo` and `make test` work on a clean clone with Python 3.11-3.13 and make; nothing is
# activated by hand. The environment is made again only when its two lists change or the native part.

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	>/dev/null 2>&1 && echo $$python && break; done)
PYTEST_WORKERS ?= 2
BIN := .venv/bin
STAMP := .venv/.installed
NATIVE_SOURCES := $(wildcard csrc/*.cpp csrc/*.h csrc/CMakeLists.txt)

.PHONY: help demo test test-full lint format
help:
	@echo 'make demo       set up, then describe a clip whose truth is known'
	@echo 'make test       set up, then lint, types and tests'
	@echo 'make test-full  the slow tests'
	@echo 'make lint       lint and types only'
	@echo 'make format     rewrite the code as the linter wants it'

demo: $(STAMP)
	$(BIN)/llava-video demo --keep demo_out

# One thread each: two workers with a thread pool per core each would wait for one another.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(PYTEST_WORKERS)

# One process: these tests measure memory and time.
test-full: $(STAMP)
	$(BIN)/pytest -m 'slow and not network and not weights'

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): constraints.txt pyproject.toml $(NATIVE_SOURCES)
	@test -n "$(PYTHON)" || { echo 'Python 3.11, 3.12 or 3.13 is needed and was not found.' \
	'Install it (Debian, Ubuntu: apt install python3.12 python3.12-venv; macOS: brew install' \
	'python@3.12) or name it: make PYTHON=/path/to/python3.12.' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo 'The venv module of' \
	'$(PYTHON) is needed and was not found. Install it (Debian, Ubuntu: apt install' \
	"$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'))." >&2; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@for cxx in "$$CXX" c++ g++ clang++; do command -v "$$cxx" >/dev/null 2>&1 && break; done && \
	$(BIN)/python -c 'import pathlib, sys, sysconfig; \
	sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").is_file())' || { \
	echo "No C++ compiler or no Python.h: installing without the native part (the same answers," \
	"slower tiles). For it: apt install g++ $$($(PYTHON) -c \
	'import sys; print("python%d.%d-dev" % sys.version_info[:2])'), or on macOS" \
	"xcode-select --install; then rm $@ and make again." >&2; export LLAVA_VIDEO_NATIVE=0; }; \
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	@touch $@
