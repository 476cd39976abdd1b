# Every target is what CI runs. `make demo` and `make test` install what is missing.
PYTHON = .venv/bin/python
DATA = data
CATALOG = data/demo/catalog.csv
EXPERIMENT = data/experiment
PAGE = docs/experiment.md
MINUTES = 60
INSTALLED = .venv/installed
# Two processes with one thread each, and whole files, because the tests of a file share models and Ray clusters.
PYTEST = OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# An emulator of Azure's storage, for tests; it is a program of Node.js.
AZURITE = .venv/azurite/node_modules/azurite/package.json
PUBLISHED = .venv/share/musictag/mtt-vgg/tagger.json

.PHONY: demo emotify experiment line install azurite check test-fast test test-infra torture-infra bench torture fuzz format clean

demo: install  ## The whole line on music that it makes itself: some minutes on 2 cores.
	$(PYTHON) -m musictag.corpora.demo data/demo
	$(MAKE) --no-print-directory line TRAIN="--epochs 14 --patience 4"
	@echo
	@echo "What lies where:  data/demo (songs), data/features, data/tags (Delta tables), data/mlflow.db (runs and models)"
	@echo "What to do next:  .venv/bin/mlflow ui --backend-store-uri sqlite:///data/mlflow.db   (runs, curves, charts)"
	@echo "                  .venv/bin/python pipelines/tag.py --catalog YOUR_MUSIC_FOLDER --tags data/my-tags"
	@echo "                  README.md, 'Your own tags': a model of your own tags"

emotify: install  ## The same on real music: make emotify EMOTIFY=folder-with-ratings.csv
	$(PYTHON) -m musictag.corpora.emotify $(EMOTIFY) data/emotify
	$(MAKE) --no-print-directory line DATA=data/emotify CATALOG=data/emotify/catalog.csv

# Stopped, it goes on where it was. On music of your own: make experiment EXPERIMENT=folder-with-catalog.csv PAGE=page.md
experiment: export MLFLOW_TRACKING_URI = sqlite:///$(EXPERIMENT)/mlflow.db
experiment: install $(EXPERIMENT)/catalog.csv  ## Networks beside classical methods: hours on 2 cores.
	$(PYTHON) pipelines/featurize.py --runner=DirectRunner --catalog $(EXPERIMENT)/catalog.csv --features $(EXPERIMENT)/features
	$(PYTHON) pipelines/experiment.py --catalog $(EXPERIMENT)/catalog.csv --features $(EXPERIMENT)/features \
		--checkpoints $(EXPERIMENT)/checkpoints --page $(PAGE)

data/experiment/catalog.csv: | install
	$(PYTHON) -m musictag.corpora.experiment data/experiment

# Promotion may refuse a model that is not better; the champion then tags.
line: export MLFLOW_TRACKING_URI = sqlite:///$(DATA)/mlflow.db
line:
	$(PYTHON) pipelines/featurize.py --runner=DirectRunner --catalog $(CATALOG) --features $(DATA)/features
	$(PYTHON) pipelines/train.py --catalog $(CATALOG) --features $(DATA)/features --checkpoints $(DATA)/checkpoints $(TRAIN)
	$(PYTHON) pipelines/evaluate.py --catalog $(CATALOG) --features $(DATA)/features
	-$(PYTHON) pipelines/promote.py
	$(PYTHON) pipelines/tag.py --features $(DATA)/features --tags $(DATA)/tags

install: $(INSTALLED) $(PUBLISHED)

# tinysoundfont asks for pyaudio, which needs a system package and is not needed to render: hence --no-deps.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(PYTHON) || python3.11 -m venv .venv
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[demo,dev,cluster]"
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps tinysoundfont
	touch $@

# The published models, of which this is written last. A newer installation is no reason to fetch them again.
$(PUBLISHED): | $(INSTALLED)
	$(PYTHON) -m musictag weights

azurite: $(AZURITE)  ## What the tests of Azure need; it needs npm.

$(AZURITE):
	@command -v npm > /dev/null || { echo "The tests of Azure need npm: install Node.js 20 or newer"; exit 1; }
	npm install --prefix .venv/azurite --no-audit --no-fund --silent azurite@3.37.0

check: install
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	MYPYPATH=tests .venv/bin/mypy --explicit-package-bases --follow-imports=silent -p benchmarks -p torture -p infra
	.venv/bin/lint-imports
	.venv/bin/hadolint infra/images/*/Dockerfile

test-fast: install  ## Everything that needs no engine: under 90 s on 2 cores.
	$(PYTEST) -m "not slow" --ignore=tests/pipelines --ignore=tests/e2e --ignore=tests/engines

test: install azurite  ## All tests: under 15 minutes on 2 cores.
	$(PYTEST)

bench: install  ## Figures of speed and memory, apart from the tests.
	$(PYTHON) -m pytest tests/benchmarks -s

fuzz: install  ## Bytes that no encoder made, against the decoding layer: make fuzz MINUTES=60
	$(PYTHON) -m pip install --quiet --disable-pip-version-check atheris==3.0.0
	mkdir -p data/fuzz
	$(PYTHON) tests/fuzz/run.py data/fuzz/corpus $(MINUTES)

torture: install  ## Jobs killed, disks full, stores that fail: half an hour on 2 cores. The same again: make torture TORTURE_SEED=7
	$(PYTHON) -m pytest tests/torture -s

test-infra: install  ## Nights, a training and two faults on the Kubernetes of KUBECONFIG, which has the images (see infra/README.md).
	$(PYTHON) -m pytest tests/infra -m "not torture"

torture-infra: install  ## The same, and all faults: an hour, in a new namespace. NODE_LINK: see tests/infra/test_faults.py.
	$(PYTHON) -m pytest tests/infra

format: install
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

clean:
	rm -rf data .venv
