# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pages of the site show their code, on desktops and on phones, and keep their addresses."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

COLUMNS = 120
DESKTOPS = (1280, 1440, 1920)
PHONE = 390
# Pages that others link to.
ADDRESSES = (
    *("index", "CONTRIBUTING", "SECURITY", "playbooks/index", "extensions/simulator/README"),
    *(f"roles/{name}/README" for name in ("passthrough", "pull", "report")),
    *(f"collections/{name}_role" for name in ("passthrough", "pull", "report")),
    *("collections/index", "collections/host_policy_module", "tests/guest/README"),
    *(
        f"docs/{name}"
        for name in (
            *("README", "awx", "boot", "errors", "fleet", "get-started", "hosts", "kernel"),
            *("mixed-fleets", "molecule", "performance", "pull", "report", "safety"),
            *("security-model", "select-devices", "style", "user-space"),
        )
    ),
)
# Of each block of code: its longest line, and whether it is cut off and can be scrolled.
CODE = """all => all.filter(code => code.offsetParent).map(code => ({
    text: code.textContent.split("\\n")[0],
    columns: Math.max(...code.textContent.split("\\n").map(line => [...line].length)),
    isCut: code.scrollWidth > code.clientWidth,
    scrolls: ["auto", "scroll"].includes(getComputedStyle(code).overflowX),
}))"""
# The sides of the navigation, of the text and of the table of contents, if they are shown.
AREAS = """all => all.filter(area => area.offsetParent).map(area => area.getBoundingClientRect())
    .filter(box => box.width && box.left < innerWidth)
    .map(box => [Math.round(box.left), Math.round(box.right)])"""
IS_WIDER = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(
    params=(
        PHONE,
        DESKTOPS[0],
        *(pytest.param(width, marks=pytest.mark.nightly) for width in DESKTOPS[1:]),
    )
)
def tab(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Open a tab of a width."""
    opened = browser.new_page(viewport={"width": request.param, "height": 900})
    yield opened
    opened.close()


def pages(site: Path) -> list[str]:
    return sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))


def code_of(tab: Page) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = tab.locator("article pre").evaluate_all(CODE)
    return blocks


def test_code_is_not_cut_off_and_nothing_overlaps(tab: Page, address: str, site: Path) -> None:
    assert tab.viewport_size
    width = tab.viewport_size["width"]
    problems: list[object] = []
    seen = 0
    for page in pages(site):
        tab.goto(f"{address}/{page}")
        blocks = code_of(tab)
        seen += len(blocks)
        problems += [(page, block) for block in blocks if block["isCut"] and not block["scrolls"]]
        if width in DESKTOPS:
            fitting = [block for block in blocks if block["columns"] <= COLUMNS]
            problems += [(page, block) for block in fitting if block["isCut"]]
        areas = tab.locator(".sidebar-drawer, .content, .toc-drawer").evaluate_all(AREAS)
        areas = [area for area in sorted(areas) if area[1] > 0]
        assert len(areas) > (width in DESKTOPS), page
        overlapping = [pair for pair in pairwise(areas) if pair[0][1] > pair[1][0]]
        problems += [(page, areas) for _pair in overlapping]
        if tab.evaluate(IS_WIDER):
            problems.append((page, "is wider than the screen"))
    assert seen > 100
    assert problems == []


def test_the_addresses_of_pages_stay(site: Path) -> None:
    assert [name for name in ADDRESSES if not (site / f"{name}.html").exists()] == []
