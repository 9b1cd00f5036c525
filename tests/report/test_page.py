# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page in a real browser: display, search, navigation and accessibility."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from axe_playwright_python.base import AXE_FILE_PATH
from playwright.sync_api import Browser, Locator, Page, expect

from ansible_collections.armfleet.vfio.plugins.plugin_utils._report_columns import HostState
from tests.harness.nightly import at_night
from tests.report.fleet import EDGE, large, result, states, unreachable
from tests.report.page import write

SECONDS = 2
BYTES = 5 * 1024 * 1024
# The rules of axe for the accessibility guidelines up to WCAG 2.2 AA, and its best practices.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
HOSTILE = (
    "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>\"'&{{ 7*7 }}<!--"
)

Show = Callable[[list[HostState]], Page]


def host_rows(page: Page) -> Locator:
    return page.locator("#ui-table > tbody > tr:not(.details):visible")


def names(page: Page) -> list[str]:
    return host_rows(page).locator("> th").all_inner_texts()


def opener(page: Page, host: str) -> Locator:
    return page.get_by_role("button", name=host, exact=True)


def devices_of(page: Page, host: str) -> Locator:
    return page.get_by_role("table", name=f"Devices of {host}")


def status(page: Page) -> Locator:
    return page.locator("#ui-matches")


def violations(page: Page) -> dict[str, list[str]]:
    """Return the elements that violate each rule of axe, which the browser's tools inject."""
    page.evaluate(AXE_FILE_PATH.read_text())
    results: dict[str, Any] = page.evaluate(
        "rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})", RULES
    )
    return {
        rule["id"]: [f"{node['html']}: {node['failureSummary']}" for node in rule["nodes"]]
        for rule in results["violations"]
    }


@pytest.mark.parametrize(
    "alike",
    [
        pytest.param(True, id="boards alike", marks=pytest.mark.nightly),
        pytest.param(False, id="no two devices alike"),
    ],
)
def test_five_hundred_hosts_of_sixty_devices_are_small_and_open_soon(
    browser: Browser, tmp_path: Path, alike: bool
) -> None:
    fleet = large(alike=alike)
    file = write(fleet, tmp_path / "report.html")
    seconds = []
    # The fastest run counts, because other load on this machine slows down single runs.
    for _run in range(5):
        page = browser.new_page()
        page.goto(file.as_uri())
        expect(status(page)).to_have_text("500 of 500 hosts shown")
        seconds.append(
            page.evaluate(
                """() => new Promise(done => requestAnimationFrame(() => setTimeout(
                    () => done(performance.now() / 1000))))"""
            )
        )
        page.close()
    devices = sum(len(host["devices"]) for host in fleet)
    print(
        f"\n500 hosts, {devices:,} devices: {file.stat().st_size / 1024:,.0f} KiB, "
        f"opened in {', '.join(f'{each:.2f}' for each in seconds)} s"
    )
    assert file.stat().st_size <= BYTES
    assert min(seconds) <= SECONDS


def test_it_says_when_and_by_what_it_was_made_and_how_many_hosts_are_how(shown: Page) -> None:
    expect(shown.locator("header")).to_contain_text("Read 31 January 2026, 12:00 UTC")
    expect(shown.locator("header")).to_contain_text(re.compile(r"armfleet\.vfio \d+\.\d+\.\d+"))
    assert shown.locator(".states button").all_inner_texts() == [
        "1\nFailed",
        "1\nUnreachable",
        "2\nDrift",
        "1\nReboot required",
        "13\nIn sync",
        "2\nNo list",
    ]
    assert names(shown)[:4] == ["gateway-08", "edge-09", "edge-04", "gateway-05"]
    expect(host_rows(shown).nth(1)).to_contain_text("It cannot be reached: connect to host")


def test_a_host_opens_with_running_wanted_and_coming_drivers_side_by_side(shown: Page) -> None:
    opener(shown, "edge-04").click()
    table = devices_of(shown, "edge-04")
    assert table.get_by_role("columnheader").all_inner_texts() == [
        "Device",
        "Running now",
        "Required",
        "After next boot",
        "Compatible",
        "IOMMU group",
        "Reset",
        "Details",
    ]
    drifting = table.locator("tbody tr").first
    assert drifting.locator("code").all_inner_texts() == [
        "/soc/crypto@e0040000",
        "ccp-crypto",
        "vfio-platform",
        "vfio-platform",
        "acme,crypto",
    ]
    expect(drifting).to_contain_text("Drift: it is bound to ccp-crypto with driver_override unset,")
    colour, other = (
        table.locator("tbody tr")
        .nth(number)
        .locator("td")
        .first.evaluate("cell => getComputedStyle(cell).backgroundColor")
        for number in (0, 1)
    )
    assert colour != other
    expect(table).to_contain_text("In use: network interface eth0 is up")
    opener(shown, "edge-04").click()
    expect(table).to_have_count(0)


def test_parts_of_a_hosts_devices_can_be_shown(shown: Page) -> None:
    opener(shown, "edge-04").click()
    table = devices_of(shown, "edge-04")
    # Two of the list, three that could be in it, one in use, and the others as one line.
    expect(table.locator("tbody tr")).to_have_count(7)
    shown.get_by_role("button", name="In use 5").click()
    expect(table.locator("tbody tr")).to_have_count(5)
    shown.get_by_role("button", name="Drift 1").click()
    expect(table.locator("tbody tr")).to_have_count(1)
    expect(shown.locator(".details [role=status]")).to_have_text("1 of 34 devices shown")


def cells_of(row: Locator) -> list[str]:
    return [" ".join(text.split()) for text in row.locator("> *").all_inner_texts()]


def test_a_host_without_a_list_shows_its_candidates_and_then_the_reasons(shown: Page) -> None:
    opener(shown, "edge-11").click()
    table = devices_of(shown, "edge-11")
    assert table.get_by_role("columnheader").all_inner_texts() == [
        *("Device", "Running now", "Compatible", "IOMMU group", "Reset", "Details")
    ]
    rows = table.locator("tbody tr")
    verdicts = [cells_of(row)[-1] for row in rows.all()]
    assert verdicts == [
        *["VFIO: yes"] * 5,
        "VFIO: no (in use) In use: network interface eth0 is up",
        "no IOMMU group 28 devices",
    ]
    assert cells_of(rows.first) == [
        "/soc/crypto@e0040000 platform e0040000.crypto",
        *("ccp-crypto", "acme,crypto", "3", "no", "VFIO: yes"),
    ]
    group = table.get_by_role("button", name="no IOMMU group")
    group.click()
    expect(group).to_have_attribute("aria-expanded", "true")
    expect(rows).to_have_count(35)
    expect(rows.nth(7)).to_contain_text("VFIO: no (no IOMMU group")
    group.click()
    expect(rows).to_have_count(7)
    shown.get_by_label("Filter").fill("edge-11 watchdog")
    expect(rows).to_have_count(1)
    assert "not in" not in table.inner_text()


def test_sorted_devices_are_in_no_groups(shown: Page) -> None:
    opener(shown, "edge-11").click()
    table = devices_of(shown, "edge-11")
    table.get_by_role("button", name="Compatible").click()
    expect(table.locator("tbody tr")).to_have_count(34)
    expect(table.locator("tbody tr").first).to_contain_text("acme,crypto")


def test_the_candidates_of_a_host_can_be_pasted_as_a_list(shown: Page) -> None:
    opener(shown, "edge-11").click()
    text = shown.locator(".policy-list pre")
    expect(text).to_be_hidden()
    shown.locator(".policy-list summary").click()
    pasted = yaml.safe_load(text.inner_text())
    assert pasted["passthrough_devices"] == [
        {"dt_path": "/soc/ethernet@e0020000", "policy": "vfio"},
        {"compatible": "acme,crypto", "expect": 2, "policy": "vfio"},
        {"compatible": "acme,dma", "expect": 2, "policy": "vfio"},
    ]
    opener(shown, "edge-04").click()
    expect(shown.locator(".policy-list")).to_have_count(1)


def test_a_drift_is_told_once_of_a_device(shown: Page) -> None:
    opener(shown, "edge-04").click()
    expect(host_rows(shown).nth(2)).to_contain_text(
        "/soc/crypto@e0040000 is bound to ccp-crypto instead of vfio-platform. Apply its list"
    )
    text = devices_of(shown, "edge-04").locator("tbody tr").first.inner_text()
    assert text.count("last-applied configuration") == text.count("after the next boot") == 1


@pytest.mark.parametrize("in_drift", [True, False])
def test_the_reason_of_the_next_boot_is_shown_unless_the_drift_has_it(
    show: Show, *, in_drift: bool
) -> None:
    returned = result(EDGE, vfio="crypto")
    device = next(device for device in returned["devices"] if device["desired"])
    device["next_boot"] |= {"driver": None, "reason": "no module is loaded", "in_drift": in_drift}
    # Whether a text has another one does not matter.
    device["drift"] = ["no module is loaded, not even now"]
    page = show(states({"edge-1": returned}))
    opener(page, "edge-1").click()
    text = devices_of(page, "edge-1").locator("tbody tr").first.inner_text()
    assert text.count("no module is loaded") == (1 if in_drift else 2)


def test_a_use_is_no_alarm_and_many_are_folded(show: Show) -> None:
    returned = result(EDGE)
    uses = [{"kind": "consumers", "message": f"device {number} uses it"} for number in range(9)]
    returned["devices"][0] |= {"in_use_by": uses, "candidate": True, "why_not": []}
    returned["devices"][1] |= {"in_use_by": None, "candidate": None}
    page = show(states({"edge-1": returned}))
    opener(page, "edge-1").click()
    table = devices_of(page, "edge-1")
    row = table.locator("tbody tr", has_text="device 2 uses it")
    colours = "cell => [getComputedStyle(cell).color, getComputedStyle(cell).backgroundColor]"
    first, *others = (
        cell.evaluate(colours)
        for cell in table.locator("tbody tr:not(.reason) > td:last-child").all()
    )
    assert all(colour == first for colour in others)
    expect(row.get_by_text("device 3 uses it")).to_be_hidden()
    row.get_by_text("6 more").click()
    expect(row.get_by_text("device 8 uses it")).to_be_visible()
    expect(table).to_contain_text("In use: unknown, because it was read without root")
    # What is not known is in no group, and is not counted as a use.
    expect(page.get_by_role("button", name="In use 5")).to_be_visible()


def test_hosts_that_were_read_without_candidates_show_all_their_devices(show: Show) -> None:
    returned = result(EDGE)
    keys = (
        *("candidate", "why_not", "entry", "settings", "iommu_group_devices", "reset_function"),
        "isolated_interrupts",
    )
    for device in returned["devices"]:
        device.update(dict.fromkeys(keys))
    page = show(states({"edge-1": returned}))
    opener(page, "edge-1").click()
    expect(devices_of(page, "edge-1").locator("tbody tr")).to_have_count(34)
    assert "VFIO:" not in devices_of(page, "edge-1").inner_text()
    expect(page.locator(".policy-list")).to_have_count(0)


@pytest.mark.parametrize("host", ["gateway-06", *at_night("edge-04", "edge-11")])
def test_a_phone_shows_the_reason_without_scrolling_sideways(shown: Page, host: str) -> None:
    shown.set_viewport_size({"width": 390, "height": 844})
    opener(shown, host).click()
    for button in shown.locator(".reason button").all():
        button.click()
    for summary in shown.locator("summary").all():
        summary.click()
    wide = "document.documentElement.scrollWidth - innerWidth"
    assert shown.evaluate(wide) == 0
    outside = """() => [...document.querySelectorAll("main *:not(pre)")]
        .filter((element) => element.checkVisibility() && !element.closest(".visually-hidden"))
        .filter((element) => element.getBoundingClientRect().right > innerWidth)
        .map((element) => element.outerHTML)"""
    assert shown.evaluate(outside) == []
    expect(host_rows(shown).nth(1)).to_contain_text("No route to host")
    expect(devices_of(shown, host).locator("tbody tr").first).to_contain_text("crypto")
    # What a screen reader gets is still a table.
    client = shown.context.new_cdp_session(shown)
    nodes = client.send("Accessibility.getFullAXTree")["nodes"]
    roles = Counter(node["role"]["value"] for node in nodes if not node["ignored"])
    assert roles["table"] == 2
    assert roles["row"] > 20
    assert roles["cell"] > 60
    assert roles["rowheader"] > 20
    assert violations(shown) == {}


def test_the_filter_finds_hosts_by_all_that_is_said_of_them_and_their_devices(shown: Page) -> None:
    shown.get_by_label("Filter").fill("gateway caam_jr")
    expect(status(shown)).to_have_text("2 of 20 hosts shown")
    assert names(shown) == ["gateway-05", "gateway-06"]
    opener(shown, "gateway-06").click()
    expect(devices_of(shown, "gateway-06").locator("tbody tr")).to_have_count(4)
    shown.get_by_label("Filter").fill("DISK IS FULL")
    expect(status(shown)).to_have_text("1 of 20 hosts shown")
    expect(devices_of(shown, "gateway-06")).to_be_hidden()
    shown.get_by_label("Filter").fill("nothing has this")
    expect(status(shown)).to_have_text("0 of 20 hosts shown")
    shown.get_by_label("Filter").fill("")
    expect(status(shown)).to_have_text("20 of 20 hosts shown")
    expect(devices_of(shown, "gateway-06").locator("tbody tr")).to_have_count(8)


def test_states_can_be_chosen_one_beside_the_other(shown: Page) -> None:
    drift = shown.get_by_role("button", name="2 Drift")
    drift.click()
    expect(drift).to_have_attribute("aria-pressed", "true")
    assert names(shown) == ["edge-04", "gateway-05"]
    shown.get_by_role("button", name="1 Failed").click()
    assert names(shown) == ["gateway-08", "edge-04", "gateway-05"]
    drift.click()
    assert names(shown) == ["gateway-08"]


def test_columns_sort_up_and_down_and_say_so(shown: Page) -> None:
    table = shown.locator("#ui-table")
    head = table.locator("thead th").first
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "ascending")
    expect(table.locator("> thead [aria-sort]")).to_have_count(1)
    assert names(shown) == sorted(names(shown))
    opener(shown, "edge-01").click()
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "descending")
    assert names(shown) == sorted(names(shown), reverse=True)
    below = host_rows(shown).last.locator("xpath=following-sibling::tr[1]")
    expect(below.get_by_role("table", name="Devices of edge-01")).to_be_visible()
    table.locator("> thead").get_by_role("button", name="In use").click()
    numbers = host_rows(shown).locator("td:last-child").all_inner_texts()
    counted = [int(number) for number in numbers if number.isdecimal()]
    assert counted == sorted(counted)
    assert len(counted) == len(numbers) - 2


def test_numbers_in_names_count_as_numbers(show: Show) -> None:
    page = show(states({f"board-{number}": result(EDGE) for number in (10, 9, 100)}))
    assert names(page) == ["board-9", "board-10", "board-100"]


def test_all_is_reached_and_used_with_the_keyboard_alone(shown: Page) -> None:
    def press(key: str, times: int = 1) -> Locator:
        for _time in range(times):
            shown.keyboard.press(key)
        return shown.locator(":focus")

    expect(press("Tab")).to_have_text("Dark theme")
    expect(press("Tab", 3)).to_have_accessible_name("2 Drift")
    width = shown.locator(":focus").evaluate("element => getComputedStyle(element).outlineWidth")
    assert width == "2px"
    shown.keyboard.press("Space")
    expect(status(shown)).to_have_text("2 of 20 hosts shown")
    expect(press("Tab", 4)).to_have_accessible_name("Filter")
    expect(press("Tab")).to_have_text("Open all shown")
    # Close all is disabled at first. After eight columns comes the first host that can be opened.
    expect(press("Tab", 9)).to_have_text("edge-04")
    shown.keyboard.press("Enter")
    expect(devices_of(shown, "edge-04")).to_be_visible()
    expect(shown.locator(":focus")).to_have_attribute("aria-expanded", "true")
    expect(press("Tab")).to_have_text("All 34")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_stands_in_the_way_of_a_screen_reader_or_weak_eyes(
    shown: Page, theme: Literal["light", "dark"]
) -> None:
    shown.emulate_media(color_scheme=theme)
    opener(shown, "edge-04").click()
    shown.get_by_role("button", name="2 Drift").click()
    assert violations(shown) == {}
    shown.get_by_role("button", name="2 Drift").click()
    assert violations(shown) == {}


def test_tables_have_captions_heads_of_columns_and_of_rows(shown: Page) -> None:
    expect(shown.get_by_role("table", name="Hosts, their states")).to_have_count(1)
    opener(shown, "edge-04").click()
    for table in shown.get_by_role("table").all():
        assert table.locator("> caption").count() == 1
        assert table.locator("> thead th:not([scope=col])").count() == 0
        for row in table.locator("> tbody > tr:not(.details)").all()[:5]:
            assert row.locator("> th[scope=row]").count() == 1


def test_it_is_dark_where_the_system_is_and_where_it_is_asked_to_be(shown: Page) -> None:
    def lightness() -> int:
        colour = shown.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    assert lightness() > 600
    shown.emulate_media(color_scheme="dark")
    assert lightness() < 150
    shown.get_by_role("button", name="Light theme").click()
    assert lightness() > 600
    shown.reload()
    assert lightness() > 600
    shown.get_by_role("button", name="Dark theme").click()
    assert lightness() < 150


def test_a_link_leads_to_a_host(shown: Page, report: Path) -> None:
    opener(shown, "edge-04").click()
    assert shown.url.endswith("#edge-04")
    shown.goto("about:blank")
    shown.goto(report.as_uri() + "#gateway-07")
    expect(devices_of(shown, "gateway-07")).to_be_visible()
    expect(opener(shown, "gateway-07")).to_be_focused()
    expect(opener(shown, "gateway-07")).to_be_in_viewport()
    shown.get_by_label("Filter").fill("edge-04")
    expect(status(shown)).to_have_text("1 of 20 hosts shown")
    shown.evaluate("location.hash = 'gateway-05'")
    expect(devices_of(shown, "gateway-05")).to_be_visible()


def test_hosts_that_are_shown_open_at_once_and_close_again(shown: Page, show: Show) -> None:
    shown.get_by_role("button", name="2 Drift").click()
    shown.get_by_role("button", name="Open all shown").click()
    expect(shown.locator(".devices")).to_have_count(2)
    shown.get_by_role("button", name="Close all").click()
    expect(shown.locator(".devices")).to_have_count(0)
    many = show(large(60, 60))
    expect(many.locator("#ui-open")).to_be_disabled()


def test_texts_of_hosts_are_shown_as_they_are_and_never_run(show: Show) -> None:
    evil = result(EDGE, vfio="crypto")
    evil["devices"][0] |= {"dt_path": HOSTILE, "drift": [HOSTILE], "driver": HOSTILE}
    for device in evil["devices"][5:8]:
        device |= {"compatible": [HOSTILE], "iommu_group": HOSTILE, "candidate": False}
        device |= {"why_not": [{"kind": HOSTILE, "message": HOSTILE}]}
        device |= {"iommu_group_devices": [HOSTILE], "entry": {"dt_path": HOSTILE}}
    new = result(EDGE)
    for device in new["devices"]:
        device |= {"driver": HOSTILE, "compatible": [HOSTILE]}
    new["devices"][0]["candidate"] = True
    fleet = states({HOSTILE: evil, "other": unreachable(HOSTILE), "new": new})
    page = show(fleet)
    page.set_default_timeout(5000)
    expect(host_rows(page)).to_have_count(3)
    assert page.title() == "Devices of the fleet"
    assert page.locator("img").count() == 0
    assert names(page) == ["other", HOSTILE, "new"]
    expect(host_rows(page).first).to_contain_text(HOSTILE)
    opener(page, HOSTILE).click()
    table = devices_of(page, HOSTILE)
    assert table.locator("tbody tr").first.locator("code").all_inner_texts()[:2] == [HOSTILE] * 2
    table.get_by_role("button", name=HOSTILE).click()
    shown = table.locator("tbody tr", has_text="VFIO: no").last
    assert shown.locator("code").all_inner_texts()[-1] == HOSTILE
    assert shown.locator("td:nth-last-child(3) > span").inner_text() == HOSTILE
    assert shown.locator("p").first.inner_text() == f"VFIO: no ({HOSTILE})"
    opener(page, "new").click()
    page.locator(".policy-list summary").click()
    pasted = page.locator(".policy-list pre").inner_text()
    assert HOSTILE in pasted
    assert "{{" not in "".join(
        line for line in pasted.splitlines() if not line.strip().startswith("#")
    )
    assert page.locator("img").count() == 0


def test_a_host_called_like_an_element_of_the_page_is_a_row(show: Show) -> None:
    elements = ["ui-data", "ui-table", "ui-filter", "ui-open", "ui-tools"]
    page = show(states({name: result(EDGE, vfio="crypto") for name in elements}))
    expect(host_rows(page)).to_have_count(len(elements))
    opener(page, "ui-data").click()
    expect(devices_of(page, "ui-data")).to_be_visible()
    page.evaluate("location.hash = 'ui-table'")
    expect(devices_of(page, "ui-table")).to_be_visible()


def test_a_script_that_got_in_would_not_run(browser: Browser, report: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    text = report.read_text()
    broken.write_text(
        text.replace(
            "</main>", "<script>document.title = 'taken'</script><img src=http://x.invalid/></main>"
        )
    )
    page = browser.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    requested: list[str] = []
    page.on("requestfinished", lambda request: requested.append(request.url))
    page.goto(broken.as_uri())
    expect(status(page)).to_have_text("20 of 20 hosts shown")
    assert page.title() == "Devices of the fleet"
    assert [message for message in refused if "script-src" in message]
    assert [message for message in refused if "img-src" in message]
    assert [url for url in requested if not url.startswith(("file:", "data:"))] == []
    page.close()


def test_without_scripts_hosts_states_and_sentences_are_there(
    browser: Browser, report: Path
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator("#ui-table > tbody > tr").count() == 20
    assert "gateway-08" in page.locator("#ui-table").inner_text()
    assert "It cannot be reached" in page.locator("#ui-table").inner_text()
    assert "Scripts are disabled" in page.locator("main").inner_text()
    assert not page.locator("#ui-tools").is_visible()
    context.close()


def test_on_paper_it_is_light_and_has_no_buttons_to_press(shown: Page) -> None:
    shown.emulate_media(color_scheme="dark", media="print")
    assert not shown.get_by_label("Filter").is_visible()
    assert not shown.locator("#ui-theme").is_visible()
    assert host_rows(shown).count() == 20
    assert shown.evaluate("getComputedStyle(document.querySelector('.hosts')).backgroundColor") == (
        "rgb(255, 255, 255)"
    )


def test_a_fleet_of_none_is_a_page_too(show: Show) -> None:
    expect(status(show([]))).to_have_text("0 of 0 hosts shown")
