# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The search of the site finds options, variables and terms by their names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser

from ansible_collections.armfleet.vfio.plugins.plugin_utils._playbook_variables import REQUIREMENTS

ROOT = Path(__file__).parents[2]
FIRST_RESULTS = 3
# What a reader types, and the pages of which each has to be among the first results.
WANTED = {
    "reset_required": ["collections/host_policy_module", "collections/passthrough_role"],
    "passthrough_reset_required": ["collections/passthrough_role", "roles/passthrough/README"],
    "unsafe_noiommu": ["collections/host_policy_module", "collections/passthrough_role"],
    "passthrough_rollout": ["collections/passthrough_role"],
    "expect": ["collections/passthrough_role", "collections/host_policy_module"],
    "dt_path": ["collections/passthrough_role", "docs/select-devices"],
    "no_autobind": ["docs/select-devices", "collections/no_autobind_module"],
    "rollout_waves": ["docs/fleet", "playbooks/index"],
    "candidates_only": ["playbooks/index", "docs/get-started"],
    "report_path": ["collections/report_role"],
    "vfio-platform": ["docs/hosts"],
    "noiommu": ["docs/user-space"],
    "driverctl": ["docs/boot"],
    "HoneyComb": ["docs/boards"],
}


@pytest.mark.parametrize("query", WANTED)
def test_the_search_finds_the_page_among_the_first_results(
    browser: Browser, address: str, query: str
) -> None:
    tab = browser.new_page()
    tab.goto(f"{address}/search.html?q={query}")
    tab.get_by_text("Search finished").wait_for()
    links = tab.locator("ul.search li > a").evaluate_all("all => all.map(a => a.href)")
    tab.close()
    pages = [link.removeprefix(f"{address}/").partition(".html")[0] for link in links]
    assert set(WANTED[query]) <= set(pages[:FIRST_RESULTS]), pages[:10]


def objects(site: Path) -> list[tuple[str, str, str]]:
    """Return name, page and anchor of each object in the index of the search."""
    text = (site / "searchindex.js").read_text()
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    kinds = {int(number): kind for number, (_domain, kind, _label) in index["objnames"].items()}
    # As performObjectSearch in Sphinx's searchtools.js: an anchor that it can compute is shortened.
    return [
        (
            name,
            index["docnames"][page],
            {"": name, "-": f"{kinds[kind]}-{name}"}.get(anchor, anchor),
        )
        for page, kind, _priority, anchor, name in index["objects"][""]
    ]


def options(specified: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of options, with those of their suboptions."""
    for name, option in specified.items():
        yield name
        yield from options(option.get("options") or option.get("suboptions") or {})


def test_every_option_and_variable_is_found_by_its_name(site: Path) -> None:
    known = {name for name, _page, _anchor in objects(site)}
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        entry_points = yaml.safe_load(path.read_text())["argument_specs"]
        assert set(options(entry_points["main"]["options"])) <= known, path
    assert set(REQUIREMENTS) <= known
    for path in sorted(ROOT.glob("plugins/modules/*.py")):
        (text,) = re.findall(
            r'^DOCUMENTATION = r?"""(.*?)"""', path.read_text(), re.DOTALL | re.MULTILINE
        )
        assert set(options(yaml.safe_load(text).get("options", {}))) <= known, path


def test_every_object_is_where_the_search_leads(site: Path) -> None:
    pages = {page: (site / f"{page}.html").read_text() for _name, page, _anchor in objects(site)}
    missing = [
        (name, page, anchor)
        for name, page, anchor in objects(site)
        if f'id="{anchor}"' not in pages[page]
    ]
    assert missing == []
