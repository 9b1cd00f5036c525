.DEFAULT_GOAL := help
.PHONY: help setup check test simulated sweep integration safety nightly demo bench guest molecule clean

STAGED = python tools/stage.py

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z]+:/ { printf "make %-11s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Set up everything that the other targets need; each of them does its own part
	@tools/setup guest

check: ## Lint, sanity and tests that need no guest (three minutes)
	@tools/setup check $(STAGED) python tools/check.py

# The longest way leads over the guest, whose kernel takes both cores; its tests take one each.
test: guest ## Everything: make check and the next five, two of them at a time
	@$(MAKE) --no-print-directory --jobs 2 --output-sync \
		check integration safety simulated sweep molecule

simulated: ## Kill and fail runs at every point, fuzz them, run hosts on simulated machines
	@tools/setup guest $(STAGED) pytest tests/simulated --depth test

sweep: ## A thousand boards of Debian's kernel, and a fleet of two hundred
	@tools/setup guest $(STAGED) pytest tests/sweep -s

integration: guest ## What users do, on a real arm64 kernel
	@tools/setup guest $(STAGED) pytest tests/integration --durations 10

safety: guest ## Devices that must not be taken or do not come loose, on a real arm64 kernel
	@tools/setup guest $(STAGED) pytest tests/safety --durations 10

nightly: ## The tests on simulated machines with ten times as many examples (half an hour)
	@tools/setup guest $(STAGED) pytest tests/simulated --depth nightly

demo: ## Show the main job on a real ARM kernel
	@tools/setup guest $(STAGED) tools/demo

bench: ## Measure, and print the tables
	@tools/setup guest $(STAGED) python tests/bench/snapshot.py
	@tools/setup guest $(STAGED) tests/bench/run

guest: ## Build what a guest is made of; 'python3 -m tests.guest' then boots one
	@tools/setup guest $(STAGED) python -m tests.guest build

molecule: ## Run the role on simulated boards in containers, as root
	@tools/setup molecule $(STAGED) molecule test --all

clean: ## Remove what was built in this folder; the caches outside it stay
	rm -rf build armfleet-vfio-*.tar.gz
