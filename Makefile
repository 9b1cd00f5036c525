.DEFAULT_GOAL := help
.PHONY: help setup check test demo bench guest clean

STAGED = python tools/stage.py

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z]+:/ { printf "make %-6s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Set up everything that the other targets need; each of them does its own part
	@tools/setup guest

check: ## Lint, sanity and unit tests (two minutes)
	@tools/setup check $(STAGED) python tools/check.py

test: check guest ## Everything: make check, then the tests on the guest
	@tools/setup guest $(STAGED) pytest tests/integration

demo: ## Show the main job on a real ARM kernel
	@tools/setup guest $(STAGED) tools/demo

bench: ## Measure, and print the tables
	@tools/setup guest $(STAGED) python tests/bench/snapshot.py
	@tools/setup guest $(STAGED) tests/bench/run

guest: ## Build what a guest is made of; 'python3 -m tests.guest' then boots one
	@tools/setup guest $(STAGED) python -m tests.guest build

clean: ## Remove what was built in this folder; the caches outside it stay
	rm -rf build armfleet-vfio-*.tar.gz
