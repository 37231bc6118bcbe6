# `make help` lists the targets. Everything is installed into .venv, once; nothing outside this folder is touched.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo ui test check bench clean

BIN := .venv/bin
STAMP := .venv/installed
INSTALL_FILES := pyproject.toml constraints.txt
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.11 python3 python3.12 python3.13 python3.14)

ifdef VIDEOS
INDEX ?= demo-data/index-$(shell basename "$(VIDEOS)")
QUERIES ?= "people talking" "an animal outdoors"
else
INDEX ?= demo-data/index
QUERIES ?= "a tabby cat" "a small cup of coffee"
endif

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'

setup: $(STAMP) ## install everything into .venv

# The stamp holds a checksum of the files it depends on, so that a new date alone installs nothing. pip asks the
# network only for what is missing, hence --no-build-isolation with setuptools already in place.
$(STAMP): $(INSTALL_FILES)
	@$(BIN)/python -c '' 2>/dev/null || { $(find_python); \
	  echo "setup: installing into .venv with $$python; about three minutes, once" >&2; \
	  "$$python" -m venv --clear .venv; }
	@if [ "$$(cat $@ 2>/dev/null)" != "$$(cat $(INSTALL_FILES) | cksum)" ]; then \
	  $(PIP) install -c constraints.txt 'setuptools>=77' \
	  && $(PIP) install -c constraints.txt --no-build-isolation -e '.[demo,dev]' \
	  || { echo "setup: pip failed, see above. What is not installed yet needs a network. Then run make again." >&2; exit 1; }; \
	fi
	@cat $(INSTALL_FILES) | cksum > $@

# Sets $$python to the first interpreter that is new enough and can make virtual environments.
define find_python
python=; no_venv=; \
for candidate in $(CANDIDATES); do \
  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
  if "$$candidate" -c 'import ensurepip, venv' 2>/dev/null; then python=$$candidate; break; fi; \
  no_venv=$$candidate; \
done; \
if [ -z "$$python" ] && [ -n "$$no_venv" ]; then \
  echo "setup: $$no_venv lacks the venv module; install it (Debian, Ubuntu: apt install python3-venv), run make again" >&2; exit 1; \
elif [ -z "$$python" ]; then \
  echo "setup: Python 3.11 or newer is needed, not found as $(CANDIDATES). Name one: make PYTHON=/path/to/python" >&2; exit 1; \
fi
endef

# Exit code 3 of `videobert index` means: done, but some videos failed; that is reported and no reason to stop.
demo: $(STAMP) ## index and search the demo videos, or your own: make demo VIDEOS=folder
ifndef VIDEOS
	$(BIN)/python -m demo.make_videos demo-data/videos
endif
	$(BIN)/videobert index "$(or $(VIDEOS),demo-data/videos)" --into "$(INDEX)" || [ $$? -eq 3 ]
	@set -e; for query in $(QUERIES); do \
	  echo "$(BIN)/videobert search $(INDEX) \"$$query\" -k 5"; \
	  $(BIN)/videobert search "$(INDEX)" "$$query" -k 5; \
	done
	@echo 'Next: $(if $(VIDEOS),make ui INDEX="$(INDEX)",make ui) opens the search page.'

ui: $(STAMP) ## open the search page on the demo's index, or another: make ui INDEX=folder
	@[ -e "$(INDEX)/index.json" ] || { echo "ui: there is no index at $(INDEX); run make demo first" >&2; exit 1; }
	$(BIN)/videobert ui "$(INDEX)"

test: $(STAMP) ## run the tests; more for pytest in ARGS: make test ARGS="-k moments"
	$(BIN)/python -m pytest $(ARGS)

check: $(STAMP) ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## run every benchmark in benchmarks/
	@set -e; for file in $$(grep -l __main__ benchmarks/*.py); do \
	  module=benchmarks.$$(basename "$$file" .py); \
	  echo "== python -m $$module"; $(BIN)/python -m "$$module"; \
	done

clean: ## delete .venv, demo-data and caches
	rm -rf .venv demo-data build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
