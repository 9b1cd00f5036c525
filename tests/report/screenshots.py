# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""python -m tests.report.screenshots DIRECTORY

Takes the screenshots of the report for the documentation, of an example fleet: in the light theme
a host with a list, in the dark theme one without, and the former on a phone.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

from playwright.sync_api import Locator

from tests.report.browser import chromium
from tests.report.fleet import example
from tests.report.page import write


class Screenshot(NamedTuple):
    """A picture of the page with one host opened, among all or those in one state."""

    name: str
    host: str
    theme: Literal["light", "dark"]
    width: int = 1280
    height: int = 900
    state: str | None = None


_SCREENSHOTS = (
    Screenshot("light", "edge-04", "light"),
    Screenshot("dark", "edge-11", "dark", state="2 No list"),
    Screenshot("phone", "edge-04", "light", 390, 844),
)


def main(directory: Path) -> None:
    """Take all screenshots."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, chromium() as browser:
        page = write(example(), Path(temporary) / "report.html")
        for screenshot in _SCREENSHOTS:
            tab = browser.new_page(
                viewport={"width": screenshot.width, "height": screenshot.height},
                color_scheme=screenshot.theme,
            )
            tab.goto(page.as_uri())
            if screenshot.state:
                tab.get_by_role("button", name=screenshot.state).click()
            opener = tab.get_by_role("button", name=screenshot.host, exact=True)
            opener.click()
            # On a phone it is below what fits.
            tab.evaluate("height => scrollTo(0, height)", _top_of(opener))
            tab.mouse.move(0, 0)
            tab.screenshot(path=directory / f"report-{screenshot.name}.png")
            tab.close()


def _top_of(opener: Locator) -> float:
    """Return where the page begins if the opened host is in its upper third, or else its top."""
    box = opener.bounding_box()
    assert box
    return box["y"] - 150 if box["y"] > 600 else 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
