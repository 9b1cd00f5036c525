# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""python -m tests.report.screenshots DIRECTORY

Takes the screenshots of the report for the documentation, of an example fleet.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Literal

from tests.report.browser import chromium
from tests.report.fleet import example
from tests.report.page import write

_SHOWN = "edge-04"
_THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def main(directory: Path) -> None:
    """Take a screenshot in each theme, with one host opened."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, chromium() as browser:
        page = write(example(), Path(temporary) / "report.html")
        for theme in _THEMES:
            tab = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=theme)
            tab.goto(page.as_uri())
            tab.get_by_role("button", name=_SHOWN, exact=True).click()
            tab.mouse.move(0, 0)
            tab.screenshot(path=directory / f"report-{theme}.png")
            tab.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
