# Everything runs in a virtual environment of its own; nothing is installed anywhere else.
# Needs Python 3.11 or later and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' kitd/__init__.py)
# What is built carries the time of the commit: the same bytes, whoever builds it and when. An sdist
# has that time at its files; a repository that it is unpacked in has nothing to say.
SOURCE_DATE_EPOCH ?= $(or $(shell { if [ -e .git ]; then git log -1 --format=%ct; else stat -c %Y PKG-INFO; fi; } 2>/dev/null),1580601600)
REVISION = $(shell [ ! -e .git ] || git rev-parse HEAD)
# Not empty: build from files that are not committed, too.
UNCOMMITTED ?=
# Not empty: check what is built though the changelog does not have this version yet.
UNRELEASED ?=
# docker, or podman or buildah, which take the same arguments.
IMAGE_TOOL ?= docker
IMAGE ?= kitd:dev
IMAGE_ARGS ?=
# For make bench: names of benchmarks, --rounds 3, --scale 0.1 …; --help lists them.
BENCH ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test quick check static format docs man site bench matrix soak fuzz \
	committed dist sbom release-check image lock clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

# Two stamps: users of the demo do not need what the tests need.
$(VENV)/.runtime: requirements.lock requirements-build.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kitd needs Python 3.11 or later; try make PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo 'this Python cannot make virtual environments: install its venv package (Debian: python3-venv)'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --require-hashes -r requirements-build.lock
	@# With the tools of that lock: isolated, pip would fetch some without asking for hashes.
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	$(BIN)/pip install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

demo: $(VENV)/.runtime ## watch a save become a kit in a registry, in two minutes
	@$(BIN)/python -I tests/e2e/demo.py

test: $(VENV)/.dev ## install what the tests need and run them all
	@sh tests/install-servers.sh
	$(BIN)/python -m pytest -n 2 --dist worksteal

quick: $(VENV)/.dev ## run the fast tests only
	$(BIN)/python -m pytest -n 2 tests/unit tests/property tests/golden -m 'not slow'

static: $(VENV)/.dev ## format, lint, types, import contracts
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

check: static test ## everything that has to pass before a change lands

format: $(VENV)/.dev ## rewrite the sources in the house format
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: $(VENV)/.dev ## write the reference pages that follow from the code
	$(BIN)/python docs/reference.py

$(VENV)/.site: $(VENV)/.runtime requirements-docs.lock
	$(BIN)/pip install --quiet --require-hashes -r requirements-docs.lock
	@touch $@

site: $(VENV)/.site ## build the documentation into build/site, a warning is an error
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --nitpicky \
		-c docs/site -d build/site-cache docs build/site

man: $(VENV)/.runtime ## write the manual pages to build/man
	$(BIN)/python docs/man.py build/man

bench: $(VENV)/.dev ## measure against the peers found on PATH
	$(BIN)/python -m benchmarks $(BENCH)

matrix: $(VENV)/.dev ## copy kits of every shape to registries of every habit and back
	@PYTHONPATH=tests $(BIN)/python -m matrix

# The same tests as in the suite, for long: trees that are hammered for minutes with all, half and
# none of the hints, a thousand schedules of writers that stall, two thousand times kill -9, pushes
# and pulls whose connections break again and again, a layer that is larger than the disk, and every
# call that changes a file failing once. About two hours.
soak: export KITD_SOAK_HAMMER_S ?= 180
soak: export KITD_SOAK_SCHEDULES ?= 1000
soak: export KITD_SOAK_PROJECTS ?= 125
soak: export KITD_SOAK_STALL_S ?= 30
soak: export KITD_SOAK_FILE_BYTES ?= 67108864
soak: export KITD_SOAK_KILLS ?= 2000
soak: export KITD_SOAK_PUSH_KILLS ?= 100
soak: export KITD_SOAK_WEBHOOK_KILLS ?= 300
soak: export KITD_SOAK_BLOB_MIB ?= 256
soak: export KITD_SOAK_CUT_MIB ?= 1 2 3 5 8 13 21 34 55 89 144 233
soak: export KITD_SOAK_CALLS_S ?= 3000
soak: export KITD_SOAK_CALLS_STEP ?= 1
soak: export KITD_SOAK_STREAM_BYTES ?= 4294967296
soak: export KITD_SOAK_STREAM_DISK ?= 512m
soak: export KITD_SOAK_TWO_WAY ?= 1000
soak: $(VENV)/.dev ## stall, hammer, kill and break disks for long, and look for what is torn or lost
	$(BIN)/python -m pytest -p no:xdist tests/soak tests/faults tests/e2e/test_mirrored_events.py

# Sixteen seconds for each of some thirty targets: ten minutes.
fuzz: export KITD_FUZZ_S ?= 16
fuzz: $(VENV)/.dev ## feed nearly valid bytes to everything that reads what others wrote
	$(BIN)/python -m pytest -p no:xdist tests/fuzz

# What lies about here may be a password: it shall not travel with what is built.
committed:
	@[ -n '$(UNCOMMITTED)' ] || [ ! -e .git ] || { \
		left=$$(git status --porcelain --untracked-files=no && \
			git ls-files --others --exclude-per-directory=.gitignore) || exit 1; \
		[ -z "$$left" ] || { echo "$$left"; \
			echo 'not committed: commit it or move it away; make … UNCOMMITTED=1 builds all the same'; \
			exit 1; }; }

dist: committed $(VENV)/.dev ## build the sdist, and the wheel out of it
	rm -rf dist
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) $(BIN)/python -m build --no-isolation --outdir dist .

# What is described is what is installed with the wheel, in an environment with nothing else.
sbom: dist ## list what the wheel brings along, as CycloneDX
	$(PYTHON) -m venv --clear $(VENV)/sbom
	$(VENV)/sbom/bin/pip install --quiet --require-hashes -r requirements-sbom.lock
	$(PYTHON) -m venv --clear --without-pip $(VENV)/bare
	$(BIN)/pip --python $(VENV)/bare/bin/python install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip --python $(VENV)/bare/bin/python install --quiet --no-index --no-deps dist/*.whl
	@# It reads no version that is elsewhere.
	sed 's/^dynamic = .*/version = "$(VERSION)"/' pyproject.toml > $(VENV)/sbom/pyproject.toml
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) \
	$(VENV)/sbom/bin/cyclonedx-py environment --pyproject $(VENV)/sbom/pyproject.toml --mc-type application \
		--output-reproducible --spec-version 1.6 --output-format JSON \
		--output-file dist/kitd-$(VERSION).cdx.json $(VENV)/bare/bin/python
	$(BIN)/python tests/finish_bill.py dist/kitd-$(VERSION).cdx.json dist/*.whl

release-check: sbom ## install the wheel alone in every Python at hand and try it
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) $(BIN)/python tests/release_check.py \
		$(if $(UNRELEASED),--unreleased) dist

image: committed ## build the container image
	$(IMAGE_TOOL) build $(IMAGE_ARGS) --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$(REVISION) \
		--build-arg CREATED=$(shell date -u -d @$(SOURCE_DATE_EPOCH) +%Y-%m-%dT%H:%M:%SZ) \
		--build-arg SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) -t $(IMAGE) .

# --upgrade: what stands in the file that is written would be taken again. The later ones follow the
# earlier, so that one environment can hold them.
COMPILE = $(VENV)/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --no-annotate --no-header

lock: ## pin the newest versions that the constraints allow
	$(PYTHON) -m venv --clear $(VENV)/lock
	$(VENV)/lock/bin/pip install --quiet --require-hashes -r requirements-lock.lock
	$(COMPILE) pyproject.toml -o requirements.lock
	$(COMPILE) pyproject.toml --extra dev -c requirements.lock -o requirements-dev.lock
	$(COMPILE) pyproject.toml --extra docs -c requirements-dev.lock -o requirements-docs.lock
	$(COMPILE) --group build -c requirements-dev.lock -o requirements-build.lock
	$(COMPILE) --group sbom -c requirements-dev.lock -o requirements-sbom.lock
	$(COMPILE) --group lock -o requirements-lock.lock

clean: ## remove what make made
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
