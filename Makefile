.DEFAULT_GOAL := help
STAGED = python tools/stage.py
SUITE = tools/setup check python tools/suite.py
# Depth of a part that runs alone: test or nightly.
DEPTH = test
# Kernel of make boots: make KERNEL=7 boots.
KERNEL = debian
SERIES = debian 6.12 7
USERLANDS = bullseye bookworm forky
# Environments of make setup: make FOR=check setup.
FOR = guest molecule report
# Their commands are in tools/parts.py; ARGS adds arguments: make sweep ARGS="-k wave".
PARTS = check site package matrix simulated sweep fleet molecule report integration integration-debian safety pull \
	roles versal vfio-modules $(SERIES:%=guest-%) $(SERIES:%=boots-%) $(SERIES:%=initramfs-%) $(SERIES:%=pci-%) \
	$(USERLANDS:%=guest-%) $(USERLANDS:%=userland-%) $(USERLANDS:%=boots-%)

.PHONY: help setup test nightly boots pci guest bench links release screenshots clean demo docs $(PARTS)

# These targets install missing system packages; the others refer to make setup.
setup test nightly demo: export ARMFLEET_INSTALL = yes

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install system and Python packages; FOR=check: only those of make check
	@$(foreach environment,$(FOR),tools/setup $(environment) &&) true

test: ## Run all tests except the nightly ones, two parts at a time
	@$(SUITE) test

nightly: ## Run all tests at full depth; parts that passed on this tree are skipped
	@$(SUITE) nightly

$(filter-out check matrix,$(PARTS)):
	@$(SUITE) part --depth $(DEPTH) $@ $(ARGS)

# Not the part of make test, which leaves to other parts what they run.
check: ## Run linters, sanity and unit tests, and simulated machines
	@tools/setup check nox $(ARGS)

# An unknown version is an error, and so is a named Python that is not installed.
matrix: ## Test supported versions of ansible-core and Python, or VERSIONS
ifdef VERSIONS
	@tools/setup guest nox --error-on-missing-interpreters --sessions $(VERSIONS:%=matrix-%)
else
	@$(SUITE) part --depth $(DEPTH) $@ $(ARGS)
endif

docs: ## Build the documentation site into build/site and check its links
	@tools/setup check $(STAGED) python tools/docs.py

site: ## Test the documentation site in a browser: its search, its code, its addresses

simulated: ## Test kills, failures and fuzzing on simulated machines

sweep: ## Test the boards of Debian's kernel and the fleet playbooks

fleet: ## Test the fleet playbooks on simulated boards and two guests

molecule: ## Test the role on simulated boards in containers, as root

report: ## Test the fleet report in a browser, and the schema in a language server

integration: ## Test common tasks on a real arm64 kernel

safety: ## Test devices in use and hanging drivers on a real arm64 kernel

pull: ## Test pulls from a git repository on a real arm64 kernel

pci: pci-debian ## Test PCI functions on a real arm64 kernel

boots: boots-$(KERNEL) initramfs-$(KERNEL) ## Test reboots on a real arm64 kernel; KERNEL=7

# Not through the suite, which needs more resources than the demo.
demo: ## Show the main use on a real arm64 kernel, in three minutes
	@tools/setup demo $(STAGED) tools/demo

bench: ## Measure performance and print the tables
	@tools/setup guest $(STAGED) python tests/bench/judging.py
	@tools/setup guest $(STAGED) python tests/bench/snapshot.py
	@tools/setup guest $(STAGED) tests/bench/run
	@tools/setup guest $(STAGED) python tests/bench/uevents.py
	@tools/setup guest $(STAGED) python tests/bench/fleet.py

guest: guest-6.12 ## Build a guest; 'python3 -m tests.guest' boots one

links: ## Check the external links of the documentation
	@tools/setup check $(STAGED) python tools/docs.py linkcheck

package: ## Build the package into build/package and check it with Galaxy's importer

release: ## Release a tested tree: make release VERSION=1.2.3
	@tools/setup check python tools/release.py $(VERSION)

screenshots: ## Take the screenshots of the report for the documentation
	@tools/setup report $(STAGED) python -m tests.report.screenshots $(CURDIR)/docs/images

clean: ## Remove build results from this directory, but not the caches
	rm -rf build .nox armfleet-vfio-*.tar.gz
