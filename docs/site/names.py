# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Sphinx extension: the search finds options, variables and terms by their names.

Sphinx searches names of objects before texts, but only a domain has objects. This one has the
options of antsibull-docs' pages, the names in the first column of the guides' tables of variables,
selectors and policies, and the terms of search-terms.txt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.domains import Domain, ObjType

_TERMS = Path(__file__).with_name("search-terms.txt")
_LABEL = re.compile(r"ansible_collections\.\w+\.\w+\.(\w+)__(parameter|return)-(.+)")
# The first words of their headers.
_TABLES = ("variable", "selector", "policy")
_NAME = re.compile(r"[a-z][a-z0-9_]+")
# As in the table objPrio of Sphinx's searchtools.js.
_FIRST, _LATER, _LAST = 0, 1, 2
# Of options with the same name, the one of these pages is shown first.
_MAIN = ("host_policy_module", "passthrough_role", "pull_role", "report_role")

_KINDS = ("option", "return-value", "term")
# A name, its kind and its anchor; an object as Sphinx expects it.
_Name = tuple[str, str, str]
_Object = tuple[str, str, str, str, str, int]


class Names(Domain):
    """What has a name that readers search for, by document."""

    name = "armfleet"
    label = "armfleet.vfio"
    object_types: ClassVar[dict[str, ObjType]] = {
        kind: ObjType(kind.replace("-", " ")) for kind in (*_KINDS, *_TABLES)
    }
    initial_data: ClassVar[dict[str, dict[str, list[_Name]]]] = {"names": {}}

    def get_type_name(self, kind: ObjType, _is_primary: bool = False) -> str:
        """Return what the kind is called in results, without the name of the domain."""
        return str(kind.lname)

    def clear_doc(self, docname: str) -> None:
        """Forget the names of a document."""
        self.data["names"].pop(docname, None)

    def get_objects(self) -> Iterator[_Object]:
        """Yield each name with its kind, document, anchor and priority."""
        for docname, names in self.data["names"].items():
            for name, kind, anchor in names:
                yield name, name, kind, docname, anchor, _LATER
        labels = self.env.domains.standard_domain.anonlabels
        for label, (docname, anchor) in labels.items():
            if match := _LABEL.fullmatch(label):
                page, section, path = match.groups()
                name = re.split(r"/|__", path)[-1]
                is_option = section == "parameter"
                rank = (_FIRST if page in _MAIN else _LATER) if is_option else _LAST
                kind = "option" if is_option else "return-value"
                yield name, name, kind, docname, anchor, rank
        for line in _TERMS.read_text().splitlines():
            if line and not line.startswith("#"):
                term, docname, anchor = line.split()
                yield term, term, "term", docname, anchor, _FIRST


def _collect(app: Sphinx, document: nodes.document) -> None:
    names: list[_Name] = []
    for table in document.findall(nodes.table):
        first, *rows = table.findall(nodes.row)
        kind = first[0].astext().partition(" ")[0]
        if kind not in _TABLES:
            continue
        for row in rows:
            for literal in row[0].findall(nodes.literal):
                name = literal.astext()
                if _NAME.fullmatch(name):
                    anchor = f"{kind}-{name}"
                    if anchor not in document.ids:
                        document.ids[anchor] = literal
                        literal["ids"].append(anchor)
                    names.append((name, kind, anchor))
    app.env.domaindata[Names.name]["names"][app.env.docname] = names


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the domain."""
    app.add_domain(Names)
    app.connect("doctree-read", _collect)
    return {"parallel_read_safe": False}
