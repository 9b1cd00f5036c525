# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""python tools/docs.py [linkcheck]

Builds the site of the documentation into build/site. It fails on any warning, on any error that a
page shows, and on broken links within the documentation. With ``linkcheck``, it checks the links to
other sites instead.

Pages have the same paths in the site as in the repository, so that links between them work in both.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import yaml
from site_errors import site_errors

from ansible_collections.armfleet.vfio.plugins.plugin_utils._playbook_variables import (
    REQUIREMENTS,
)

_SOURCE = Path.cwd()
_BUILD = _SOURCE.parents[2]
_PAGES = _BUILD / "pages"
_SITE = _BUILD / "site"
_LABELS = _BUILD / "labels.inv"
_SETTINGS = _SOURCE / "docs/site"
_COLLECTION = yaml.safe_load((_SOURCE / "galaxy.yml").read_text())
_NAME = f"{_COLLECTION['namespace']}.{_COLLECTION['name']}"


def _lay_out() -> None:
    shutil.rmtree(_PAGES, ignore_errors=True)
    shutil.copytree(_SOURCE, _PAGES)
    shutil.copy(_SETTINGS / "index.md", _PAGES)
    for page in _PAGES.rglob("*.md"):
        page.write_text(_with_links_of_the_site(page))
    _write_reference(_PAGES / "collections")
    _write_playbooks(_PAGES / "playbooks")
    _write_labels(_LABELS)


def _with_links_of_the_site(page: Path) -> str:
    """Return the page's text with links that work in the site.

    The site has no pages for directories, and its first page has the parts of the README.
    """

    def link(match: re.Match[str]) -> str:
        path, anchor = match.group(1), match.group(2) or ""
        target = (page.parent / path).resolve()
        if target == _PAGES / "README.md":
            return f"]({os.path.relpath(_PAGES / 'index.md', page.parent)}{anchor})"
        if not target.is_dir():
            return match.group()
        return f"]({_COLLECTION['repository']}/tree/main/{target.relative_to(_PAGES)})"

    return re.sub(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)", link, page.read_text())


def _write_reference(directory: Path) -> None:
    # antsibull-docs requires a directory that no other user can write to.
    directory.mkdir(mode=0o755)
    command = ["antsibull-docs", "--config-file", str(_SETTINGS / "antsibull-docs.cfg")]
    command += ["collection", "--use-current", "--squash-hierarchy", "--fail-on-error"]
    _run([*command, "--dest-dir", str(directory), _NAME])
    for page in directory.glob("*.rst"):
        page.write_text(_without_contents(page.read_text()))
    index = directory / "index.rst"
    index.write_text(_with_short_titles(index.read_text()))


def _without_contents(text: str) -> str:
    """Return a page's text without a table of contents; the theme has its own beside each page."""
    return re.sub(r"^\.\. contents::\n(?: +:.*\n)*\n", "", text, flags=re.MULTILINE)


def _with_short_titles(text: str) -> str:
    """Return the index of the reference with titles that fit into the navigation."""
    title, own_title = _NAME.title(), "Modules and plugins"
    underlined = f"{title}\n{'=' * len(title)}\n"
    text = text.replace(underlined, f"{own_title}\n{'=' * len(own_title)}\n")
    return re.sub(
        r"^( +)(\w+)_(module|filter|lookup|role)$", r"\1\2 \3 <\2_\3>", text, flags=re.MULTILINE
    )


def _write_playbooks(directory: Path) -> None:
    """Write a page of all playbooks, because antsibull-docs has none."""
    introduction = (
        "They act on the hosts of `passthrough_hosts`, a pattern as in `hosts:`. "
        "[Roll out to a fleet](../docs/fleet.md) describes exit codes, and how to give lists.\n"
    )
    texts = ["# Playbooks and their variables\n", introduction]
    for path in sorted(directory.glob("*.yml")):
        names = ", then ".join(play["name"] for play in yaml.safe_load(path.read_text()))
        texts.append(
            f"## {_NAME}.{path.stem}\n\n{names}.\n\n{_variables_of(path)}"
            f"```{{literalinclude}} {path.name}\n```\n"
        )
    (directory / "index.md").write_text("\n".join(texts))


def _variables_of(playbook: Path) -> str:
    """Return a table of the variables that a playbook checks; empty if it has none."""
    names = set(re.findall(r"\w+", playbook.read_text())) & REQUIREMENTS.keys()
    if not names:
        return ""
    rows = ["| variable | default | value |", "|---|---|---|"]
    for name in sorted(names):
        default = REQUIREMENTS[name].default
        shown = "unset" if default is None else f"`{json.dumps(default)}`"
        rows.append(f"| `{name}` | {shown} | {REQUIREMENTS[name].sentence} |")
    return "\n".join(rows) + "\n\n"


def _write_labels(path: Path) -> None:
    """Write an inventory for Sphinx of the labels in Ansible's documentation that ours uses."""
    lines = (_SETTINGS / "ansible-labels.txt").read_text().splitlines()
    labels = [line.split() for line in lines if not line.startswith("#")]
    known = "".join(f"{name} std:label -1 {where} {name}\n" for name, where in labels)
    header = "# Sphinx inventory version 2\n# Project: Ansible\n# Version:\n"
    header += "# The remainder of this file is compressed using zlib.\n"
    path.write_bytes(header.encode() + zlib.compress(known.encode()))


def _run(command: Sequence[str]) -> None:
    environment = {
        **os.environ,
        "SITE_REPOSITORY": _COLLECTION["repository"],
        "SITE_LABELS": str(_LABELS),
    }
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{command[0]} failed")


def main(builder: str) -> None:
    """Lay out the pages and build them."""
    _lay_out()
    shutil.rmtree(_SITE, ignore_errors=True)
    sphinx = ["sphinx-build", "-q", "-b", builder, "-c", str(_SETTINGS), "-W", "--keep-going"]
    _run([*sphinx, "-d", str(_BUILD / "cache/sphinx"), "--fresh-env", str(_PAGES), str(_SITE)])
    if builder == "html":
        # Editors fetch the schema from the address in its $id.
        shutil.copytree(_SOURCE / "docs/schema", _SITE / "docs/schema")
        if errors := site_errors(_SITE):
            sys.exit("\n".join(["errors in the site:", *errors]))
    print(f"{_SITE}/index.html" if builder == "html" else "every link leads somewhere")


if __name__ == "__main__":
    main(*sys.argv[1:] or ["html"])
