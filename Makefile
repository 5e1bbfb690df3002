# make run    search on this machine with what is in the box (ARGS="name=x experiments=50 ..." to say more)
# make test   every test; make quick   those that start no processes, and those of the modules touched
# make check  linters and types; make soak   slow endurance tests; make red-team-user   attacks as an ordinary user
# make docs   the documentation site, into docs/_build/index.html
# make setup  only the installation; make lock   pin the versions installed now
PYTHON ?= python3
ARGS ?= experiments=12 ideas=configs/shelf claim=4
BIN := .venv/bin
# Compiled once, not in each of the hundreds of processes that the tests start.
export PYTHONDONTWRITEBYTECODE :=
# Pip's own environments, in which it builds packages, are pinned as well; its version says which of the two it reads.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_BUILD_CONSTRAINT := $(CURDIR)/constraints.txt

.PHONY: run test quick check docs soak red-team-user setup lock clean
run: setup
	$(BIN)/autoresearch run $(ARGS)

test: .venv/.dev
	$(BIN)/pytest -n 3 --dist worksteal  # the third worker fills the pauses of the others

quick: .venv/.dev
	$(BIN)/pytest -n 2 --dist worksteal --quick

check: .venv/.dev docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/.dev  # the site, into docs/_build; a warning or anything from another host is an error
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build
	! grep -rlE '(src|<link[^>]* href)="(https?:)?//' docs/_build --include='*.html'

soak: .venv/.dev red-team-user
	$(BIN)/pytest -m soak

red-team-user: .venv/.dev  # every attack, as an ordinary user; root becomes nobody
	tests/red_team/as_user $(BIN)/pytest -p no:cacheprovider -n 2 -m "not live" tests/red_team

setup: .venv/.installed
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "autoresearch needs Python 3.11 or newer; try make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing (a minute or two) ..."
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/.dev: .venv/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

lock:
	{ head -n 1 constraints.txt; $(BIN)/pip freeze --all --exclude pip --exclude-editable | sed 's/+cpu//' | sort -f; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf .venv build docs/_build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
