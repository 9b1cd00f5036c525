"""A part of a screen's card is in use as the card is, and an I2C adapter that a driver holds."""

from __future__ import annotations

import pytest
from board import Board
from hazards import HOME, NAME, assert_acceptable, assert_free, refusal
from simulated_kernel import BoardModule, Driver

from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.kinds import ACCEPTABLE

TREE = "firmware/devicetree/base"
CRYPTO_NODE = "/soc/crypto@b000000"
CARD_NODE = "/soc/gpu@c000000"
CARD = "devices/platform/c000000.gpu"
OTHER_NODE = "/soc/dma@b003000"


@pytest.fixture
def board(board: Board) -> Board:
    """A board with a device whose driver is in a module of its own."""
    driver = Driver("acme-gpu", compatible=("acme,gpu",), module="acme_gpu")
    board.kmod.modules["acme_gpu"] = BoardModule(name="acme_gpu", drivers=(driver,))
    board.kmod.load("acme_gpu")
    board.kernel.add_device("c000000.gpu", CARD_NODE, ("acme,gpu",))
    assert board.kernel.driver_of("c000000.gpu") == "acme-gpu"
    return board


def refer(board: Board, node: str, name: str, *cells: int) -> None:
    content = b"".join(cell.to_bytes(4, "big") for cell in cells)
    board.kernel.put(f"{TREE}{node}/{name}", content)


def connect(board: Board, node: str, other: str, number: int) -> None:
    """Connect two nodes by a port each; the endpoints have the phandles number and number + 1."""
    for own, phandle, remote in ((node, number, number + 1), (other, number + 1, number)):
        endpoint = f"{own}/ports/port@{number}/endpoint"
        refer(board, endpoint, "phandle", phandle)
        refer(board, endpoint, "remote-endpoint", remote)


def add_card(board: Board, home: str = CARD) -> None:
    """Add a card with a connector below a device."""
    board.kernel.put(f"{home}/drm/card0/dev", "226:0\n")
    board.kernel.put(f"{home}/drm/card0/uevent", "DEVNAME=dri/card0\n")
    board.kernel.put(f"{home}/drm/card0/card0-HDMI-A-1/status", "connected\n")
    board.kernel.point("class/drm/card0", f"{home}/drm/card0")
    board.kernel.point("class/drm/card0-HDMI-A-1", f"{home}/drm/card0/card0-HDMI-A-1")


def add_console(board: Board) -> None:
    board.kernel.put("class/vtconsole/vtcon1/name", "(M) frame buffer device\n")
    board.kernel.put("class/vtconsole/vtcon1/bind", "1\n")


def add_components(board: Board, *rows: tuple[str, str], whole: str = "bound") -> None:
    """Add what root sees of a driver that takes several devices together."""
    line = "{:<40} {:>20}\n".format
    rule = "-" * 61 + "\n"
    text = line("aggregate_device name", "status") + rule + line("c000000.gpu", whole) + "\n"
    text += line("device name", "status") + rule + "".join(line(*row) for row in rows)
    board.kernel.put("kernel/debug/device_component/c000000.gpu", text)


def assert_part_of_console(board: Board, reason: str) -> None:
    message = refusal(board, allow=["consumers"])
    assert "card0 may show the virtual terminals (it supplies platform:c000000.gpu" in message
    assert "add 'console' to `allow`" in message
    assert f"platform:c000000.gpu uses it ({reason}) and would stop working" in refusal(board)
    assert_free(board, allow=["console", "consumers"])


@pytest.fixture
def card(board: Board) -> Board:
    """A board with a card that is the console, on another device."""
    add_card(board)
    add_console(board)
    return board


def test_a_device_that_is_no_part_of_the_card_is_free(card: Board) -> None:
    connect(card, CARD_NODE, OTHER_NODE, 30)
    add_components(card, ("b003000.dma", "bound"), ("(unknown)", "not registered"))
    assert_free(card)


def test_what_a_port_connects_with_the_card_is_a_part_of_it(card: Board) -> None:
    connect(card, CARD_NODE, CRYPTO_NODE, 30)
    assert_part_of_console(card, "remote-endpoint in the device tree")


def test_so_is_what_is_connected_through_another_part(card: Board) -> None:
    connect(card, CARD_NODE, OTHER_NODE, 30)
    connect(card, OTHER_NODE, CRYPTO_NODE, 40)
    assert_part_of_console(card, "remote-endpoint in the device tree")


def test_so_is_the_controller_whose_port_the_card_names(card: Board) -> None:
    """As of rockchip: display-subsystem { ports = <&vopb_out>, <&vopl_out>; }."""
    refer(card, f"{OTHER_NODE}/port", "phandle", 20)
    refer(card, f"{CRYPTO_NODE}/port", "phandle", 21)
    refer(card, CARD_NODE, "ports", 20, 21)
    assert_part_of_console(card, "ports in the device tree")


def test_so_is_the_transmitter_behind_that_controller(card: Board) -> None:
    refer(card, f"{OTHER_NODE}/port", "phandle", 20)
    refer(card, CARD_NODE, "ports", 20)
    refer(card, f"{OTHER_NODE}/port/endpoint", "phandle", 22)
    refer(card, f"{OTHER_NODE}/port/endpoint", "remote-endpoint", 23)
    refer(card, f"{CRYPTO_NODE}/ports/port@0/endpoint", "phandle", 23)
    refer(card, f"{CRYPTO_NODE}/ports/port@0/endpoint", "remote-endpoint", 22)
    assert_part_of_console(card, "remote-endpoint in the device tree")


def test_what_is_behind_a_usb_connector_or_a_phy_is_no_part(card: Board) -> None:
    card.kernel.put(f"{TREE}/connector/compatible", b"usb-c-connector\0")
    connect(card, CARD_NODE, "/connector", 30)
    connect(card, "/connector", CRYPTO_NODE, 40)
    refer(card, OTHER_NODE, "#phy-cells", 1)
    connect(card, CARD_NODE, OTHER_NODE, 50)
    connect(card, OTHER_NODE, CRYPTO_NODE, 60)
    assert_free(card)


@pytest.mark.parametrize("name", ["dais", "links"])
def test_sound_for_a_screen_is_no_part(card: Board, name: str) -> None:
    connect(card, CARD_NODE, CRYPTO_NODE, 30)
    refer(card, f"{CRYPTO_NODE}/ports/port@30", "phandle", 35)
    refer(card, "/sound", name, 35)
    assert_free(card)


def test_a_transmitter_may_take_its_own_adapter_away(card: Board) -> None:
    """As of dw-hdmi, whose connector is below the card: its removal takes the card down before."""
    card.kernel.put(f"{HOME}/i2c-20/name", "DesignWare HDMI\n")
    card.kernel.point(f"{CARD}/drm/card0/card0-HDMI-A-1/ddc", f"{HOME}/i2c-20")
    add_components(card, (NAME, "bound"))
    assert_free(card, allow=["console", "consumers"])


def test_a_component_of_the_card_is_a_part_of_it(card: Board) -> None:
    add_components(card, ("b003000.dma", "bound"), (NAME, "bound"))
    assert_part_of_console(card, "a component of its driver")


@pytest.mark.parametrize(
    ("of_whole", "of_part"), [("not bound", "not bound"), ("bound", "not bound")]
)
def test_a_component_that_is_not_bound_is_free(card: Board, of_whole: str, of_part: str) -> None:
    add_components(card, (NAME, of_part), whole=of_whole)
    assert_free(card)


def test_a_component_of_what_has_no_card_is_in_use_as_well(board: Board) -> None:
    add_components(board, (NAME, "bound"))
    assert "platform:c000000.gpu uses it (a component of its driver)" in refusal(board)
    assert_acceptable(board, "consumers")


def test_devices_of_the_drivers_in_the_module_of_the_card_are_parts_of_it(board: Board) -> None:
    """As of vc4, whose parts no port connects, if only root can ask for components."""
    add_card(board, "devices/platform/b002000.dma")
    add_console(board)
    message = refusal(board, allow=["consumers"])
    assert "card0 may show the virtual terminals (it supplies platform:b002000.dma)" in message
    reported = "platform:b002000.dma uses it (the module acme of its driver) and would stop working"
    assert reported in refusal(board)


def test_a_module_for_pci_drives_each_function_by_itself(board: Board) -> None:
    """As nvidia, which has drivers for cards and for the switches between them."""
    home = "devices/pci0000:00/0000:00:07.0"
    add_card(board, home)
    add_console(board)
    board.kernel.point(f"{home}/driver/module", "module/acme")
    board.kernel.point(f"{home}/subsystem", "bus/platform")
    assert "platform:0000:00:07.0 uses it (the module acme of its driver)" in refusal(board)
    board.kernel.point(f"{home}/subsystem", "bus/pci")
    assert_free(board)


def test_a_device_with_a_card_of_its_own_is_no_part_of_another(board: Board) -> None:
    add_card(board, "devices/platform/b002000.dma")
    board.kernel.put(f"{HOME}/drm/card1/dev", "226:1\n")
    board.kernel.point("class/drm/card1", f"{HOME}/drm/card1")
    assert_free(board)


def test_who_has_the_card_open_is_named(card: Board) -> None:
    connect(card, CARD_NODE, CRYPTO_NODE, 30)
    card.process(60, "Xorg", "/dev/dri/card0")
    reported = "/dev/dri/card0 is held open by Xorg (pid 60) (it supplies platform:c000000.gpu)"
    assert reported in refusal(card)


def test_a_clock_of_a_part_takes_the_console_as_well(card: Board) -> None:
    connect(card, CARD_NODE, OTHER_NODE, 30)
    refer(card, CRYPTO_NODE, "phandle", 7)
    refer(card, CRYPTO_NODE, "#clock-cells", 0)
    refer(card, OTHER_NODE, "clocks", 7)
    reported = (
        "card0 may show the virtual terminals (it supplies platform:b003000.dma, that supplies "
        "platform:c000000.gpu)"
    )
    assert reported in refusal(card)


# I2C adapters, whose removal waits for all who have them.


@pytest.mark.parametrize(
    "name", ["ddc", "ddc-i2c-bus", "nvidia,ddc-i2c-bus", "i2c-bus", "i2c-parent", "edid-i2c"]
)
def test_an_adapter_that_a_driver_holds_is_never_unbound(board: Board, name: str) -> None:
    refer(board, CRYPTO_NODE, "phandle", 7)
    refer(board, CARD_NODE, name, 7)
    message = refusal(board, allow=ACCEPTABLE)
    assert f"platform:c000000.gpu uses it ({name} in the device tree) and holds the I2C" in message
    assert "Unbind platform:c000000.gpu first" in message


def test_nor_is_one_with_a_multiplexer_of_which_a_driver_holds_a_channel(board: Board) -> None:
    """As of an SFP cage; i2c_mux_del_adapters in drivers/i2c/i2c-mux.c removes each channel."""
    mux = f"{CRYPTO_NODE}/mux@70"
    board.kernel.put(f"{TREE}{mux}/compatible", b"acme,mux\0")
    refer(board, f"{mux}/i2c@1", "phandle", 7)
    refer(board, CARD_NODE, "i2c-bus", 7)
    message = refusal(board, allow=ACCEPTABLE)
    assert "platform:c000000.gpu uses it (i2c-bus in the device tree) and holds the I2C" in message


def test_nor_is_one_that_supplies_its_holder_something_else_too(board: Board) -> None:
    refer(board, CRYPTO_NODE, "phandle", 7)
    refer(board, CRYPTO_NODE, "#clock-cells", 0)
    refer(board, CARD_NODE, "clocks", 7)
    refer(board, CARD_NODE, "ddc", 7)
    assert "holds the I2C adapter" in refusal(board, allow=ACCEPTABLE)


@pytest.mark.parametrize(("status", "hangs"), [("active", False), ("not tracked", True)])
def test_a_holder_that_the_kernel_unbinds_first_returns_the_adapter(
    board: Board, status: str, *, hangs: bool
) -> None:
    board.kernel.add_link(NAME, "c000000.gpu")
    link = "devices/virtual/devlink/platform:b000000.crypto--platform:c000000.gpu"
    board.kernel.put(f"{link}/status", f"{status}\n")
    board.kernel.point(f"{link}/consumer", CARD)
    refer(board, CRYPTO_NODE, "phandle", 7)
    refer(board, CARD_NODE, "ddc", 7)
    if hangs:
        assert "holds the I2C adapter" in refusal(board, allow=ACCEPTABLE)
    else:
        assert_acceptable(board, "consumers")


def test_an_adapter_of_a_device_without_a_driver_is_free(board: Board) -> None:
    refer(board, CRYPTO_NODE, "phandle", 7)
    refer(board, "/soc/ethernet@e0700000", "ddc", 7)
    assert_free(board)


def test_the_adapter_of_a_connector_is_held_by_the_driver_beside_it(board: Board) -> None:
    refer(board, CRYPTO_NODE, "phandle", 7)
    board.kernel.put(f"{TREE}/connector/compatible", b"hdmi-connector\0")
    refer(board, "/connector", "ddc-i2c-bus", 7)
    connect(board, "/connector", CARD_NODE, 30)
    message = refusal(board, allow=ACCEPTABLE)
    assert "platform:c000000.gpu uses it (ddc-i2c-bus in the device tree) and holds" in message


def test_an_adapter_that_a_connector_of_a_card_names_is_never_unbound(board: Board) -> None:
    """Without a device tree, too: drm_sysfs_connector_add in drivers/gpu/drm/drm_sysfs.c."""
    add_card(board)
    board.kernel.put(f"{HOME}/i2c-20/name", "acme ddc\n")
    board.kernel.point(f"{CARD}/drm/card0/card0-HDMI-A-1/ddc", f"{HOME}/i2c-20")
    message = refusal(board, allow=ACCEPTABLE)
    assert "card0-HDMI-A-1 uses it (ddc of its connector) and holds the I2C adapter" in message


def test_an_adapter_of_the_card_itself_goes_with_it(board: Board) -> None:
    add_card(board, HOME)
    board.kernel.put(f"{HOME}/i2c-20/name", "acme ddc\n")
    board.kernel.point(f"{HOME}/drm/card0/card0-HDMI-A-1/ddc", f"{HOME}/i2c-20")
    assert_free(board)


def test_a_holder_can_have_any_name(board: Board) -> None:
    board.kernel.add_device("d000000.50%s", "/soc/odd@d000000", ("acme,gpu",))
    refer(board, CRYPTO_NODE, "phandle", 7)
    refer(board, "/soc/odd@d000000", "ddc", 7)
    assert "Unbind platform:d000000.50%s first" in refusal(board, allow=ACCEPTABLE)
