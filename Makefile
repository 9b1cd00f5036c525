.DEFAULT_GOAL := help
STAGED = python tools/stage.py
SUITE = tools/setup check python tools/suite.py
# How much the parts try that run alone: test or nightly.
DEPTH = test
# Which kernel make boots has; make KERNEL=7 boots.
KERNEL = debian
SERIES = debian 6.12 7
# What make setup sets up; make FOR=check setup.
FOR = guest molecule report
# Their commands are in tools/parts.py; make sweep WORDS="-k wave" has more of them.
PARTS = check docs package matrix simulated sweep fleet molecule report integration integration-debian safety pull \
	$(SERIES:%=guest-%) $(SERIES:%=boots-%) $(SERIES:%=initramfs-%)

.PHONY: help setup test nightly boots guest bench links release screenshots clean demo $(PARTS)

# These promise to set up all they need; the others point to make setup if a system package is missing.
setup test nightly demo: export ARMFLEET_INSTALL = yes

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install system packages, which it lists first, and Python packages; FOR=check: less of them
	@$(foreach environment,$(FOR),tools/setup $(environment) &&) true

test: ## Everything but what is left for the night, two parts at a time, and a table of it
	@$(SUITE) test

nightly: ## Everything, in its full form; what has passed on this very tree is not run again
	@$(SUITE) nightly

$(filter-out matrix,$(PARTS)):
	@$(SUITE) part --depth $(DEPTH) $@ $(WORDS)

check: ## Lint, sanity and tests that need no guest (two minutes on two free cores)

# An unknown version is an error, and so is a Python that is named and not here.
matrix: ## The role, sanity and units on the supported ansible-cores and Pythons, or on VERSIONS
ifdef VERSIONS
	@tools/setup guest nox --error-on-missing-interpreters --sessions $(VERSIONS:%=matrix-%)
else
	@$(SUITE) part --depth $(DEPTH) $@ $(WORDS)
endif

docs: ## Build the site of the documentation into build/site, and check its links

simulated: ## Kill and fail runs at every point, fuzz them, run hosts on simulated machines

sweep: ## Boards of Debian's kernel, and the playbooks for fleets

fleet: ## All playbooks for fleets over simulated boards and two guests

molecule: ## Run the role on simulated boards in containers, as root

report: ## The report of a fleet, in a browser and over simulated boards

integration: ## What users do, on a real arm64 kernel

safety: ## Devices that must not be taken or do not come loose, on a real arm64 kernel

pull: ## A host that pulls its list from a git repository, on a real arm64 kernel

boots: boots-$(KERNEL) initramfs-$(KERNEL) ## Boot after boot, and how devices came to their drivers; KERNEL=7

# Not by way of the suite, which needs more of this machine than the demo does.
demo: ## Show the main job on a real ARM kernel, in three minutes
	@tools/setup demo $(STAGED) tools/demo

bench: ## Measure, and print the tables
	@tools/setup guest $(STAGED) python tests/bench/snapshot.py
	@tools/setup guest $(STAGED) tests/bench/run
	@tools/setup guest $(STAGED) python tests/bench/fleet.py

guest: guest-6.12 ## Build what a guest is made of; 'python3 -m tests.guest' then boots one

links: ## Ask for the documentation's links to other sites
	@tools/setup check $(STAGED) python tools/docs.py linkcheck

package: ## Build the package into build/package and have Galaxy's importer read it

release: ## Make a release of what make test has passed: make release VERSION=1.2.3
	@tools/setup check python tools/release.py $(VERSION)

screenshots: ## Make the pictures of the report that the documentation shows
	@tools/setup report $(STAGED) python -m tests.report.screenshots $(CURDIR)/docs/images

clean: ## Remove what was built in this directory; the caches outside it stay
	rm -rf build .nox armfleet-vfio-*.tar.gz
