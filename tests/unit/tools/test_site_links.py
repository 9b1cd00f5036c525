"""Links to other sites are well formed; make links checks every night that they resolve."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/*/README.md")])


def is_well_formed(link: str) -> bool:
    parts = urlsplit(link)
    return parts.scheme == "https" and "." in parts.netloc and not re.search(r"[\s<>`]", link)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page(page: Path) -> None:
    links = re.findall(r"\]\((\w+:[^)]*)\)", page.read_text())
    assert [link for link in links if not is_well_formed(link)] == []


@pytest.mark.parametrize("name", ["repository", "documentation", "homepage", "issues"])
def test_the_links_of_the_package(name: str) -> None:
    assert is_well_formed(yaml.safe_load((ROOT / "galaxy.yml").read_text())[name])
