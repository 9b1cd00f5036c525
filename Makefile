.DEFAULT_GOAL := help
STAGED = python tools/stage.py
# Of Linux, as tests/guest/packages.py has them.
SERIES = 6.12 7

.PHONY: help setup check test simulated sweep integration safety pull boots newer nightly demo bench \
	guest matrix docs links package release molecule fleet report screenshots clean \
	$(SERIES:%=guest-%) $(SERIES:%=boots-%) $(SERIES:%=initramfs-%)

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z]+:/ { printf "make %-11s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Set up everything that the other targets need; each of them does its own part
	@tools/setup guest

check: ## Lint, sanity and tests that need no guest (three minutes)
	@tools/setup check $(STAGED) python tools/check.py

# The longest way leads over the guest, whose kernel takes both cores; its tests take one each. How an
# initramfs is built is the same on all kernels: that it is on the newest too is for make newer.
test: guest ## Everything but the nightly rest: make check and what it lacks, two targets at a time
	@tools/setup guest python tools/tested.py begin
	@$(MAKE) --no-print-directory --jobs 2 --output-sync \
		boots-7 integration boots safety pull check matrix fleet docs simulated sweep molecule report
	@tools/setup guest python tools/tested.py end

simulated: ## Kill and fail runs at every point, fuzz them, run hosts on simulated machines
	@tools/setup guest $(STAGED) pytest tests/simulated --depth test

sweep: ## A thousand boards of Debian's kernel, and the playbooks for fleets
	@tools/setup guest $(STAGED) pytest tests/sweep -s

fleet: guest ## All playbooks for fleets over two hundred simulated boards and two guests
	@tools/setup guest $(STAGED) pytest tests/fleet -s --durations 10

integration: guest ## What users do, on a real arm64 kernel
	@tools/setup guest $(STAGED) pytest tests/integration --durations 10

safety: guest ## Devices that must not be taken or do not come loose, on a real arm64 kernel
	@tools/setup guest $(STAGED) pytest tests/safety --durations 10

pull: guest ## A host that pulls its list from a git repository, on a real arm64 kernel
	@tools/setup guest $(STAGED) pytest tests/pull --durations 10

boots: boots-6.12 initramfs-6.12 ## Boot after boot, and how devices came to their drivers

newer: boots-7 initramfs-7 ## The same on the newest series of Linux that Debian has

$(SERIES:%=boots-%): boots-%: guest-%
	@tools/setup guest $(STAGED) pytest tests/boots --ignore tests/boots/test_initramfs.py \
		--kernel $* --durations 10

$(SERIES:%=initramfs-%): initramfs-%: guest-%
	@tools/setup guest $(STAGED) pytest tests/boots/test_initramfs.py --kernel $* --durations 10

nightly: ## The tests on simulated machines with ten times as many examples (half an hour)
	@tools/setup guest $(STAGED) pytest tests/simulated --depth nightly

demo: ## Show the main job on a real ARM kernel
	@tools/setup demo $(STAGED) tools/demo

bench: ## Measure, and print the tables
	@tools/setup guest $(STAGED) python tests/bench/snapshot.py
	@tools/setup guest $(STAGED) tests/bench/run
	@tools/setup guest $(STAGED) python tests/bench/fleet.py

guest: guest-6.12 ## Build what a guest is made of; 'python3 -m tests.guest' then boots one

$(SERIES:%=guest-%): guest-%:
	@tools/setup guest $(STAGED) python -m tests.guest build --kernel $*

matrix: ## The role, sanity and units on each ansible-core and Python that is supported
	@tools/setup guest $(STAGED) python tools/matrix.py $(VERSIONS)

docs: ## Build the site of the documentation into build/site, and check its links
	@tools/setup check $(STAGED) python tools/docs.py

links: ## Ask for the documentation's links to other sites
	@tools/setup check $(STAGED) python tools/docs.py linkcheck

package: ## Build the package into build/package and have Galaxy's importer read it
	@tools/setup check $(STAGED) python tools/package.py $(CURDIR)/build/package
	@tools/setup check $(STAGED) python tools/importer.py $(CURDIR)/build/package

release: ## Make a release of what make test has passed: make release VERSION=1.2.3
	@tools/setup check python tools/release.py $(VERSION)

molecule: ## Run the role on simulated boards in containers, as root
	@tools/setup molecule $(STAGED) molecule test --all

report: ## The report of a fleet, in a browser and over simulated boards
	@tools/setup report $(STAGED) pytest tests/report -s

screenshots: ## Make the pictures of the report that the documentation shows
	@tools/setup report $(STAGED) python -m tests.report.screenshots $(CURDIR)/docs/images

clean: ## Remove what was built in this folder; the caches outside it stay
	rm -rf build armfleet-vfio-*.tar.gz
