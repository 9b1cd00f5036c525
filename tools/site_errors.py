# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds errors that a reader of the built site sees, and about which Sphinx does not warn."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

# The classes of docutils' errors, and of the admonition.
_ERRORS = ({"system-message"}, {"problematic"}, {"admonition", "error"})
# Furo's style sheet shows an error instead of any table of contents without this class.
_CONTENTS = "contents"
_ALLOWED_CONTENTS = "this-will-duplicate-information-and-it-is-still-useful-here"
_THEME_ERRORS = {f".{_CONTENTS}:not(.{_ALLOWED_CONTENTS}):before"}


class _Page(HTMLParser):
    """Collects the errors of a page with their lines."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[tuple[int, str]] = []
        self._is_without_scripts = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # The theme's search page has a noscript element with an error: it needs scripts.
        self._is_without_scripts |= tag == "noscript"
        classes = set((dict(attrs).get("class") or "").split())
        is_error = any(error <= classes for error in _ERRORS)
        is_error |= _CONTENTS in classes and _ALLOWED_CONTENTS not in classes
        if is_error and not self._is_without_scripts:
            self.errors.append((self.getpos()[0], f'<{tag} class="{dict(attrs)["class"]}">'))

    def handle_endtag(self, tag: str) -> None:
        self._is_without_scripts &= tag != "noscript"


def _theme_errors(style: Path) -> list[str]:
    """Return the selectors of a style sheet whose elements are shown as errors."""
    rules = re.findall(r'([^{}]+)\{[^{}]*content:\s*"error', style.read_text(), re.IGNORECASE)
    return [selector.strip() for rule in rules for selector in rule.split(",")]


def site_errors(site: Path) -> list[str]:
    """Return a line for each error in a page, and for each unknown error of the theme."""
    errors = []
    for path in sorted(site.rglob("*.html")):
        page = _Page()
        page.feed(path.read_text())
        errors += [f"{path.relative_to(site)}:{line}: {what}" for line, what in page.errors]
    for path in sorted(site.rglob("*.css")):
        unknown = set(_theme_errors(path)) - _THEME_ERRORS
        errors += [
            f"{path.relative_to(site)}: the theme shows an error for {selector}, "
            "which tools/site_errors.py does not know"
            for selector in sorted(unknown)
        ]
    return errors
