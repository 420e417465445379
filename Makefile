# Every target sets up .venv itself the first time; later calls reuse it.
# GNU make 3.81 or newer, bash, Linux or macOS.

SHELL := bash
PYTHON ?= python3
WORKERS ?= 2
STAMP := .venv/.installed
IN_VENV := export PATH="$$PWD/.venv/bin:$$PATH" PYTHONUTF8=1;

.DEFAULT_GOAL := help
.PHONY: help demo paper recheck test test-slow test-reading bench bench-full book notebooks release address clean

help:  ## this list
	@echo "usage: make TARGET [PYTHON=python3.12] [WORKERS=2] [TORCH_INDEX=URL]"; echo
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/\1@\2/' | awk -F@ '{printf "  %-12s %s\n", $$1, $$2}'

demo: $(STAMP)  ## the main job on synthetic data: trains both arms, prints their kappa (minutes)
	@echo "papermill notebooks/02_finetune.py out.ipynb -p epochs 50"
	@$(IN_VENV) papermill notebooks/02_finetune.py out.ipynb -p epochs 50
	@$(IN_VENV) viptt summary out.ipynb

# UCF50=DIR IMAGECLEF=DIR: the paper's own data; without, the study on synthetic data.
# STUDIES=NAME,NAME: other plans; VIDEOS=DIR SCANS=DIR: their data, of several sources VIDEOS=NAME=DIR,NAME=DIR.
# PLAN=1: say what it takes, and start nothing. SETTINGS="--seeds 1 --epochs 5": options of `viptt study run`.
# CORES=2: jobs at once, but one on a GPU. PROFILE=slurm GPU=1: on a cluster, see workflow/profiles/slurm/config.yaml.
CORES ?= 2
PROFILE ?= default
PLANS = $(or $(STUDIES),$(if $(VIDEOS)$(SCANS),paper,synthetic))
VIDEOS ?= $(UCF50)
SCANS ?= $(IMAGECLEF)
comma := ,
paper: $(STAMP)  ## all runs of the study to its tables and the book; PLAN=1: only say what they take (hours to days)
ifdef PLAN
	@$(IN_VENV) export OMP_NUM_THREADS=1; set -e; for study in $(subst $(comma), ,$(PLANS)); do \
	  viptt study estimate $$study $(if $(VIDEOS),--videos-root "$(subst $(comma)," --videos-root ",$(VIDEOS))") $(if $(SCANS),--scans-root "$(SCANS)") $(SETTINGS); done
else
	@$(IN_VENV) python workflow/run.py $(if $(filter slurm,$(PROFILE)),,--cores $(CORES)) \
	  --workflow-profile workflow/profiles/$(PROFILE) \
	  --config studies="$(PLANS)" videos_root="$(VIDEOS)" scans_root="$(SCANS)" settings="$(SETTINGS)" $(if $(GPU),gpu=$(GPU))
endif

recheck: $(STAMP)  ## every table and claim again from the committed predictions, no training (minutes)
	@$(IN_VENV) viptt recheck $(subst $(comma), ,$(STUDIES))

# ruff reads what Git tracks, not a reader's drafts; without Git all that is here.
SOURCES = $(wildcard $(shell git ls-files '*.py' 2>/dev/null))
test: $(STAMP)  ## ruff, the layers of the package and the tests (minutes)
	@$(IN_VENV) ruff check $(SOURCES) && ruff format --check -q $(SOURCES)
	@$(IN_VENV) lint-imports --no-cache --no-logo
	@$(IN_VENV) OMP_NUM_THREADS=1 pytest -q -n $(WORKERS) --dist worksteal

test-slow: $(STAMP)  ## the tests that take longer
	@$(IN_VENV) pytest -q -m slow

# Other versions of NumPy, PyAV and SciPy are taken on newer Pythons: what reads files is tried there without 5 GB of
# PyTorch. The tests of READING need no more than READING_PACKAGES, of the versions in constraints.txt.
READING = video ct orientation wrong_scans wrong_videos wrong_folders wrong_arrays wrong_tables \
  inspection datasets published_sets own_data cache
READING_PACKAGES = av filelock isal joblib nibabel numpy opencv-python-headless pandas pytest pytest-xdist pyyaml \
  scikit-learn scipy tqdm xxhash
test-reading:  ## what reads files, tested without PyTorch on any Python: PYTHON=python3.13 (a minute)
	@set -e; venv=build/reading-$$($(PYTHON) -c 'import platform; print(platform.python_version())'); \
	  [ -x $$venv/bin/pytest ] || $(PYTHON) -m venv $$venv; \
	  $$venv/bin/python -m pip install -q --disable-pip-version-check --no-input -c constraints.txt $(READING_PACKAGES); \
	  OMP_NUM_THREADS=1 PYTHONUTF8=1 $$venv/bin/python -m pytest -q -n $(WORKERS) --dist worksteal $(READING:%=tests/test_%.py)

bench: $(STAMP)  ## measure against the references and write the page Performance (20 minutes)
	@$(IN_VENV) python -m benchmarks --profile quick

bench-full: $(STAMP)  ## the same at the paper's size (hours)
	@$(IN_VENV) python -m benchmarks --profile full

book: $(STAMP)  ## build the book into _build/html; a warning is an error
	@$(IN_VENV) jupyter-book build --all -W --keep-going book/

notebooks: $(STAMP)  ## execute the notebooks again and put them into book/notebooks
	@$(IN_VENV) viptt publish

# A fresh page whose runs are not here (a new clone) is executed again, too: its weights are part of a release.
SHOWN = $$(grep -oE 'runs/[a-z]+-[a-z]+-[0-9a-f]{16}' book/notebooks/02_finetune.ipynb | sort -u)
release: $(STAMP)  ## into dist/: stale pages executed again, then recheck, tests, the book, weights, the package
	@$(IN_VENV) set -e; grep '^  url:' _config.yml | grep -vq OWNER || { echo "First: make address URL=..." >&2; exit 1; }; \
	  for run in $(SHOWN); do [ -d "$$run" ] || { viptt publish 02_finetune; break; }; done; \
	  viptt publish --stale; viptt study ledger; viptt recheck; $(MAKE) --no-print-directory test book; \
	  rm -rf dist; mkdir dist; python -c 'import shutil; shutil.make_archive("dist/book", "zip", "_build/html")'; \
	  mkdir dist/weights; for run in $(SHOWN); do to="dist/weights/$$(basename "$$run")"; \
	    cp "$$run/weights.safetensors" "$$to.safetensors"; cp "$$run/weights.json" "$$to.json"; \
	    viptt weights list "$$to.safetensors" > /dev/null; done; \
	  python -m pip wheel -q --no-deps -w dist .; git status --short
	@echo "dist/ holds the release. Pages that were executed again are to be committed before it is tagged."

ADDRESSED := _config.yml README.md book/intro.md CITATION.cff .zenodo.json pyproject.toml book/_static/citation.bib notebooks book/notebooks
address:  ## set the address of the repository wherever it stands: URL=https://github.com/NAME/viptt-net
	@[[ '$(URL)' =~ ^https://github.com/[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$$ ]] || \
	  { echo "usage: make address URL=https://github.com/NAME/viptt-net" >&2; exit 1; }
	@old=$$(sed -n 's|^  url: https://github.com/||p' _config.yml); \
	  grep -rlF "$$old" $(ADDRESSED) | while read -r file; do \
	    sed -i.old "s|$$old|$(URL:https://github.com/%=%)|g" "$$file" && \
	      touch -r "$$file.old" "$$file" && rm "$$file.old" && echo "set in $$file"; done

clean:  ## remove the built book, caches and out.ipynb; keeps .venv, data, runs and results
	rm -rf _build build viptt_core.egg-info .pytest_cache .ruff_cache out.ipynb
	find viptt_core tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

# A Python that does not start is started once more, for what it says itself.
# TORCH_INDEX=URL: PyTorch's index for CPUs, whose build needs no CUDA. Without dependencies: it has other versions of them.
# pip tells what it fetches, and the size of .venv grows: several GB without a sign of life look like a hang.
$(STAMP): pyproject.toml constraints.txt
	@hint="Name a Python 3.11, 3.12 or 3.13: make PYTHON=python3.12 ..."; \
	  file=$$(command -v $(firstword $(PYTHON))) || { echo "'$(PYTHON)' was not found. $$hint" >&2; exit 1; }; \
	  version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || \
	    { echo "'$(PYTHON)' was found ($$file) but does not start:" >&2; $(PYTHON) -c '' >&2; echo "$$hint" >&2; exit 1; }; \
	  case "$$version" in 3.11 | 3.12 | 3.13) ;; \
	    *) echo "'$(PYTHON)' is Python $$version. $$hint" >&2; exit 1;; esac
	@echo "Setting up .venv: some minutes, $(if $(TORCH_INDEX),2 GB,7 GB on Linux). Happens once."
	@$(PYTHON) -m venv .venv || \
	  { echo "Python's venv module does not work here; on Debian or Ubuntu install python3-venv." >&2; exit 1; }
	@set -o pipefail; \
	  install() { .venv/bin/python -u -m pip install --disable-pip-version-check --no-input --progress-bar off \
	    -c constraints.txt "$$@"; }; \
	  ( while sleep 20 > /dev/null 2>&1; do echo "  .venv has $$(du -sm .venv | cut -f 1) MB"; done ) & trap "kill $$!" EXIT; \
	  { $(if $(TORCH_INDEX),install --no-deps --index-url "$(TORCH_INDEX)" torch torchvision && )install -e '.[all]'; } | \
	  while read -r line; do case "$$line" in \
	    *.metadata*) ;; Downloading* | "Using cached"*) echo "  $$line";; Installing\ c*) echo "  Installing";; esac; done
	@touch $(STAMP)
