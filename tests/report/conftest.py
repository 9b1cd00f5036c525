# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A browser for all tests, and for each a tab that must send no request and log nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from ansible_collections.armfleet.vfio.plugins.plugin_utils._report_columns import HostState
from tests.report.browser import chromium
from tests.report.fleet import example
from tests.report.page import write


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the page of the example fleet."""
    return write(example(), tmp_path_factory.mktemp("example") / "report.html")


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    """Open a tab with a profile of its own; fail on any network request or console message."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on(
        "request",
        lambda request: request.url.startswith(("file:", "data:")) or messages.append(request.url),
    )
    yield page
    context.close()
    assert messages == []


@pytest.fixture
def shown(tab: Page, report: Path) -> Page:
    """Show the example fleet in the tab."""
    tab.goto(report.as_uri())
    return tab


@pytest.fixture
def show(tab: Page, tmp_path: Path) -> Callable[[list[HostState]], Page]:
    """Return a function that shows another fleet in the tab."""

    def show_fleet(hosts: list[HostState]) -> Page:
        tab.goto(write(hosts, tmp_path / "report.html").as_uri())
        return tab

    return show_fleet
