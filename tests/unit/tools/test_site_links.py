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


def labels_of(text: str) -> set[str]:
    """Return the labels that references to plugins of Ansible itself have in its documentation."""
    plugins = {
        *((name, "module") for name in re.findall(r"\bM\((ansible\.builtin\.\w+)\)", text)),
        *re.findall(r"\bP\((ansible\.builtin\.\w+)#(\w+)\)", text),
    }
    return {f"ansible_collections.{name}_{kind}" for name, kind in plugins}


def test_the_site_knows_each_plugin_of_ansible_that_documentation_refers_to() -> None:
    """Without its label the site, which only the night builds, cannot be built."""
    sources = [*ROOT.glob("plugins/*/*.py"), *ROOT.glob("roles/*/meta/argument_specs.yml")]
    used = set().union(*(labels_of(source.read_text()) for source in sources))
    assert len(used) > 2
    known = {
        line.split()[0]
        for line in (ROOT / "docs/site/ansible-labels.txt").read_text().splitlines()
        if line.startswith("ansible_collections.")
    }
    assert used == known
