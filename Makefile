# Everything runs in one virtual environment, .venv, which is made anew when pyproject.toml or constraints.txt change.
#   make test PYTHON=python3.12                                                        another interpreter
#   make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"       PyTorch without CUDA
#   make demo UV=                                                                      pip although uv is there

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo demo-clinic test test-all lint format docs docs-check site licences wheel bench-help bench-cpu bench-gpu train-large clean

BIN := .venv/bin
DATA ?= qata
BENCH = $(DATA) $(if $(CELLS),--cells $(CELLS)) $(if $(MINUTES),--minutes $(MINUTES))
LARGE = --data $(DATA) --resume
SOFT = -s data.teacher=runs/large/teacher
PARALLEL := -n auto --maxprocesses 8 --dist loadfile
STAMP := .venv/.stamp

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1 \t/p' Makefile | expand -t 22

$(STAMP): pyproject.toml constraints.txt
	scripts/venv .venv -c constraints.txt -e '.[dev,docs,codecs,dicomweb]'
	@touch $@

demo: $(STAMP) ## draw phantom films, train on them, evaluate, write runs/demo/eval/report.html
	$(BIN)/reportseg demo -o runs/demo

demo-clinic: $(STAMP) ## a DICOM film and a report in, a DICOM SEG, contours and an overlay out, through Orthanc if it is there, in runs/clinic
	$(BIN)/python scripts/demo_clinic.py runs/clinic

test: $(STAMP) ## the tests, minutes on two cores
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not dcmtk and not dicom3tools and not orthanc and not node"

test-all: lint docs-check site licences wheel ## all checks: lint, docs, site, licences, the wheel alone, every test
	$(BIN)/python -m pytest $(PARALLEL)

lint: $(STAMP) ## style, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## mend what lint can mend
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

docs: $(STAMP) ## write the generated pages of docs/
	$(BIN)/python scripts/docs.py

docs-check: $(STAMP) ## generated pages current, links whole, commands real
	$(BIN)/python scripts/docs.py --check

site: $(STAMP) ## build the documentation as site/index.html; a warning fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

licences: $(STAMP) ## fail on GPL and AGPL
	$(BIN)/python scripts/licences.py

wheel: $(STAMP) ## build the wheel, install it alone elsewhere, run the demo from it
	rm -rf build dist
	$(BIN)/python -m build --wheel
	scripts/try_wheel dist/*.whl

bench-help: $(STAMP) ## time of reportseg --help
	$(BIN)/python benchmarks/cli_help.py

bench-cpu: $(STAMP) ## all methods on a CPU, hours, goes on where it stopped: [DATA=qata] [CELLS=tgcnet,unet-0] [MINUTES=60]
	$(BIN)/python benchmarks/bench.py cpu $(BENCH)

bench-gpu: $(STAMP) ## the same methods at 224 px on an accelerator: [DATA=qata] [CELLS=tgcnet] [MINUTES=60]
	$(BIN)/python benchmarks/bench.py gpu $(BENCH)

train-large: $(STAMP) ## on an accelerator: three teachers, their student of 12 M and its twin, goes on where it stopped: [DATA=qata]
	$(BIN)/reportseg train tgcnet_qata_large $(LARGE) --seeds 1,2 -o runs/large
	$(BIN)/reportseg train tmca_qata_large $(LARGE) --seeds 1 -o runs/large
	$(BIN)/reportseg predict runs/large/tgcnet_qata_large-1/bundle --with runs/large/tgcnet_qata_large-2/bundle \
	  --with runs/large/tmca_qata_large-1/bundle --jobs $(DATA) --split train --flips --resume -o runs/large/teacher
	$(BIN)/reportseg train tgcnet_qata_large $(LARGE) $(SOFT) -o runs/large/student
	$(BIN)/reportseg train tgcnet_qata_large $(LARGE) $(SOFT) -s data.text=constant -o runs/large/twin

clean: ## remove .venv and what was built; runs/ stays
	rm -rf .venv build dist site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
