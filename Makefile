# Two commands matter: `make demo` and `make test`. Both set up .venv first, from constraints.txt. The sequence model needs PyTorch,
# which is large: `make setup EXTRAS=lab,dev,deep`.
SHELL := /bin/bash
BIN := .venv/bin
EXTRAS ?= lab,dev
STAMP := .venv/.installed-$(EXTRAS)

.PHONY: demo test lab setup sync style notebooks unit golden bench readme

demo: $(STAMP)  ## run the demo experiment on the embedded simulator and print its verdicts
	@$(BIN)/cryptoalgo demo

lab: $(STAMP)  ## open JupyterLab on the notebooks
	@$(BIN)/cryptoalgo lab

test: $(STAMP)  ## everything CI runs; what this machine lacks is skipped and listed
	@PATH="$(CURDIR)/$(BIN):$$PATH" tests/run

setup: $(STAMP)

$(STAMP): constraints.txt pyproject.toml
	@.ci/prerequisites
	@test -x $(BIN)/python || "$$(.ci/prerequisites --python)" -m venv .venv
	@echo "Installing the pinned packages of constraints.txt into .venv (a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@

readme: $(STAMP)  ## README.md from nbs/index.ipynb
	@$(BIN)/jupyter nbconvert --to markdown --execute --output-dir . --output README nbs/index.ipynb

bench: $(STAMP)  ## measure, beside the peers, what docs/benchmarks states
	@for b in benchmarks/*.py; do $(BIN)/python $$b || exit 1; done
