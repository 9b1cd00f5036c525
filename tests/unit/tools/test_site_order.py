# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The site's navigation and docs/README.md have the same guides in the same order."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
INDEX = (ROOT / "docs/site/index.md").read_text()
GUIDES = (ROOT / "docs/README.md").read_text()


def navigation() -> dict[str, list[str]]:
    """Return the pages of each part of the site's navigation, by its caption."""
    parts = re.findall(r":caption: ([^\n]*)\n(?::[^\n]*\n)*\n(.*?)```", INDEX, re.DOTALL)
    return {
        caption.lower(): [line.split("<")[-1].rstrip(">") for line in lines.splitlines()]
        for caption, lines in parts
    }


def test_docs_readme_has_the_parts_of_the_navigation() -> None:
    parts = re.findall(r"^\| ([^|]+) \| (?:read it to|contains) \|", GUIDES, re.MULTILINE)
    assert [*parts, "contribute"] == list(navigation())


def test_docs_readme_has_the_guides_in_the_order_of_the_navigation() -> None:
    in_navigation = [page for pages in navigation().values() for page in pages]
    guides = [page.removeprefix("docs/") for page in in_navigation if page.startswith("docs/")]
    guides = [page for page in guides if page not in ("README", "style")]
    rows = re.findall(r"^\| .*\]\(([\w-]+)\.md\) \| ", GUIDES, re.MULTILINE)
    assert rows == guides
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} == {*guides, "README", "style"}
