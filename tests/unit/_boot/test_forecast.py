"""device_info reports why a device is bound to its driver, and its driver after a reboot."""

from __future__ import annotations

import errno
import json
import os

import pytest
from board import AMBA, CRYPTO, DMA, Board
from simulated_kernel import BoardModule, Driver

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import MARK, RULES

NOTHING = "bound to no driver with driver_override unset"
MODPROBE = "/etc/modprobe.d/others.conf"
LOADED = "/etc/modules-load.d/others.conf"
COMMAND_LINE = "/proc/cmdline"
BY_HAND = "it was bound manually, with a driver_override that has since been cleared"


def why(board: Board, name: str) -> tuple[str, str]:
    bound_by = board.info(name)["bound_by"]
    return bound_by["kind"], bound_by["message"]


def set_override(board: Board, name: str, override: str) -> None:
    board.kernel.write(f"bus/platform/devices/{name}/driver_override", override or "\n")


def bind_by_hand(board: Board, name: str, driver: str) -> None:
    set_override(board, name, driver)
    board.kernel.write(f"bus/platform/drivers/{driver}/bind", name)
    set_override(board, name, "")


def add(board: Board, module: BoardModule) -> None:
    board.kmod.modules[module.name] = module
    board.kmod.load(module.name)


def test_a_device_without_a_driver_has_none_for_a_reason(board: Board) -> None:
    assert board.info("b004000.ethernet")["bound_by"] is None


def test_a_compatible_is_named_that_the_drivers_module_claims(board: Board) -> None:
    # Its first compatible is acme,crypto-v1, which the module does not claim.
    assert why(board, "b000000.crypto") == (
        "compatible",
        "the module acme claims its compatible acme,crypto",
    )


def test_amba_devices_are_claimed_by_their_id(board: Board) -> None:
    assert why(board, "b008000.blob") == ("amba", "the module acme claims amba:d00041011")


def test_acpi_devices_are_claimed_by_their_ids(board: Board) -> None:
    driver = Driver("virtio-mmio", hids=("LNRO0005",), module="virtio_mmio")
    add(board, BoardModule(name="virtio_mmio", drivers=(driver,), aliases=("acpi*:LNRO0005:*",)))
    board.kernel.add_device("LNRO0005:00", acpi=("\\_SB_.VR00", "LNRO0005"))
    assert why(board, "LNRO0005:00") == ("acpi", "the module virtio_mmio claims acpi:LNRO0005:")


def test_devices_without_firmware_are_claimed_by_their_names(board: Board) -> None:
    add(
        board,
        BoardModule(
            name="acme_clock",
            drivers=(Driver("clock-driver", devices=("acme-clock",), module="acme_clock"),),
            aliases=("platform:acme-clock",),
        ),
    )
    board.kernel.add_device("acme-clock")
    board.kernel.add_device("dummy")
    board.kernel.register(Driver("dummy", devices=("dummy",)))
    sentence = "the module acme_clock claims platform:acme-clock"
    assert why(board, "acme-clock") == ("name", sentence)
    assert why(board, "dummy") == ("name", "the device's name, dummy, is the driver's name")


def test_of_a_built_in_driver_nobody_tells_by_what_it_was_chosen(board: Board) -> None:
    kind, sentence = why(board, "soc:keys")
    assert kind == "unknown"
    assert "built in" in sentence


def test_but_where_the_kernel_keeps_the_aliases_of_built_in_modules_they_tell(board: Board) -> None:
    board.kmod.modules["gpio_keys"] = BoardModule(name="gpio_keys", aliases=("of:N*T*Cgpio-keys",))
    # A loadable module cannot be the module of a built-in driver.
    assert why(board, "soc:keys")[0] == "unknown"
    board.kmod.build_in("gpio_keys")
    sentence = "the module gpio_keys claims its compatible gpio-keys"
    assert why(board, "soc:keys") == ("compatible", sentence)


def test_a_kernel_that_names_the_module_of_a_built_in_driver_is_believed(board: Board) -> None:
    board.kernel.put("module/gpio_keys/uevent", "")
    board.kernel.point("bus/platform/drivers/gpio-keys/module", "module/gpio_keys")
    board.kmod.modules["gpio_keys"] = BoardModule(name="gpio_keys", aliases=("of:N*T*Cgpio-keys",))
    sentence = "the module gpio_keys claims its compatible gpio-keys"
    assert why(board, "soc:keys") == ("compatible", sentence)


def test_a_built_in_module_that_modinfo_does_not_know_is_not_the_last_word(board: Board) -> None:
    board.kernel.add_device("dummy")
    board.kernel.put("bus/platform/devices/dummy/modalias", "platform:dummy\n")
    board.kernel.register(Driver("dummy", devices=("dummy",)))
    board.kernel.put("module/dummy_core/uevent", "")
    board.kernel.point("bus/platform/drivers/dummy/module", "module/dummy_core")
    assert why(board, "dummy") == ("name", "the device's name, dummy, is the driver's name")


@pytest.fixture
def by_hand(board: Board) -> Board:
    """The board with a device that was bound manually to a driver that does not match it."""
    board.kernel.add_device("b00a000.other", "/soc/other@b00a000", ("acme,other",))
    bind_by_hand(board, "b00a000.other", "acme-dma")
    return board


def test_a_driver_that_does_not_claim_the_device_was_bound_by_hand(by_hand: Board) -> None:
    device = by_hand.info("b00a000.other")
    sentence = f"the module acme does not claim it: {BY_HAND}"
    assert device["bound_by"] == {"kind": "manual", "message": sentence}
    assert device["next_boot"]["driver"] is None
    assert len(device["drift"]) == 1


def test_vfio_drivers_claim_nothing(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False, persistent=False)
    set_override(board, "b000000.crypto", "")
    sentence = f"vfio-platform claims no device by itself: {BY_HAND}"
    assert why(board, "b000000.crypto") == ("manual", sentence)
    device = board.info("b000000.crypto")
    assert device["next_boot"]["known"] is False
    assert len(device["drift"]) == 1


def test_what_a_module_claims_may_not_be_known(board: Board) -> None:
    """The package of the running kernel may have been removed."""
    del board.kmod.modules["acme"]
    device = board.info("b000000.crypto")
    assert device["bound_by"]["kind"] == "unknown"
    assert device["bound_by"]["message"].startswith("modinfo does not find the module acme")
    assert device["next_boot"]["driver"] == "acme-crypto"


def test_an_override_that_came_later_is_told(board: Board) -> None:
    set_override(board, "b000000.crypto", "vfio-platform")
    kind, sentence = why(board, "b000000.crypto")
    assert kind == "compatible"
    assert sentence == (
        "the module acme claims its compatible acme,crypto; its driver_override was set to "
        "vfio-platform after that, and takes effect at the next probe"
    )


def test_who_sets_an_override_is_told(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False)
    of_list = (
        "its driver_override is vfio-platform, which the last-applied configuration sets (policy "
        "vfio)"
    )
    assert why(board, "b000000.crypto") == ("override", of_list)
    board.apply([], reset_required=False)
    board.apply([CRYPTO], reset_required=False, persistent=False)
    for path, content, words in (
        (None, "", "was set manually while the system runs"),
        (
            "/etc/udev/rules.d/80-x.rules",
            'KERNEL=="b000000.crypto", ATTR{driver_override}="vfio-platform"\n',
            "the rule /etc/udev/rules.d/80-x.rules:1 sets",
        ),
        (
            "/etc/driverctl.d/platform-b000000.crypto",
            "vfio-platform\n",
            "driverctl sets (/etc/driverctl.d/platform-b000000.crypto)",
        ),
    ):
        if path:
            board.write_file(path, content)
        sentence = f"its driver_override is vfio-platform, which {words}"
        assert why(board, "b000000.crypto") == ("override", sentence)


def test_of_a_device_that_hangs_it_is_not_told(board: Board) -> None:
    board.kernel.hung.add("b000000.crypto")
    assert board.info("b000000.crypto")["bound_by"] is None


def test_a_native_module_is_loaded_by_udev(board: Board) -> None:
    device = board.info("b000000.crypto")
    reason = "the kernel chooses the driver; udev loads the driver's module acme"
    assert device["next_boot"] == {
        "driver": "acme-crypto",
        "driver_override": None,
        "known": True,
        "in_drift": False,
        "reason": reason,
    }
    assert device["module_configuration"] == device["drift"] == []


@pytest.mark.parametrize(
    ("path", "content", "location", "says"),
    [
        (MODPROBE, "# why\nblacklist acme\n", f"{MODPROBE}:2", "blacklist acme"),
        (MODPROBE, "install acme /bin/true\n", f"{MODPROBE}:1", "install acme /bin/true"),
        (COMMAND_LINE, "quiet module_blacklist=x,acme\n", COMMAND_LINE, "module_blacklist=x,acme"),
        (COMMAND_LINE, "modprobe.blacklist=acme\n", COMMAND_LINE, "modprobe.blacklist=acme"),
    ],
)
def test_unless_somebody_keeps_it_away(
    board: Board, path: str, content: str, location: str, says: str
) -> None:
    board.write_file(path, content)
    # systemd-modules-load would load the module too, but obeys the same configuration.
    board.write_file(LOADED, "acme\n")
    device = board.info("b000000.crypto")
    reason = f"{location} has '{says}', so the driver's module acme is not loaded"
    assert device["next_boot"] == {
        "driver": None,
        "driver_override": None,
        "known": True,
        "in_drift": True,
        "reason": reason,
    }
    assert device["module_configuration"] == [
        {"location": location, "text": says},
        {"location": f"{LOADED}:1", "text": "acme"},
    ]
    (sentence,) = device["drift"]
    assert sentence.endswith(f"will be {NOTHING} after the next boot: {reason}")


@pytest.mark.parametrize("path", ["/etc/modprobe.d/a.conf", MODPROBE, COMMAND_LINE])
def test_a_value_that_the_kernel_refuses_is_drift(board: Board, path: str) -> None:
    board.apply([CRYPTO], reset_required=False)
    line = "options vfio-platform reset_required=maybe reset_required=0"
    location = f"{path}:1"
    if path == COMMAND_LINE:
        line, location = "vfio-platform.reset_required=maybe", path
    board.write_file(path, line + "\n")
    device = board.info("b000000.crypto")
    assert device["module_configuration"] == [{"location": location, "text": line}]
    (sentence,) = device["drift"]
    assert f"{location} has '{line}', and the kernel refuses reset_required=maybe, so" in sentence
    assert "vfio_platform, which policy vfio of the last-applied configuration requires" in sentence
    assert device["next_boot"]["driver"] is None


@pytest.mark.parametrize(("version", "hides"), [(252, True), (262, False), (None, False)])
def test_systemd_decides_what_a_directory_hides(
    board: Board, version: int | None, *, hides: bool
) -> None:
    """As systemd-modules-load 252, 257 and 262 do."""
    if version:
        board.write_file(f"/usr/lib/systemd/libsystemd-shared-{version}.so", "")
    (board.files_root / LOADED[1:]).mkdir(parents=True)
    board.write_file(LOADED.replace("/etc", "/usr/lib"), "acme\n")
    listed = board.info("b000000.crypto")["module_configuration"]
    assert [entry["text"] for entry in listed] == ([] if hides else ["acme"])


def test_a_command_instead_of_the_module_leaves_open_what_the_next_boot_makes(
    board: Board,
) -> None:
    line = "install acme /usr/local/sbin/claim"
    board.write_file(MODPROBE, line + "\n")
    device = board.info("b000000.crypto")
    assert device["next_boot"] == {
        "driver": None,
        "driver_override": None,
        "known": False,
        "in_drift": False,
        "reason": "the kernel chooses the driver; "
        f"{MODPROBE}:1 has '{line}', so whether the driver's module acme is loaded depends on that "
        "command",
    }
    assert device["drift"] == []
    assert device["module_configuration"] == [{"location": f"{MODPROBE}:1", "text": line}]


def test_so_does_one_instead_of_the_module_of_vfio(board: Board) -> None:
    board.apply([CRYPTO, DMA], reset_required=False)
    line = "install vfio_platform /usr/local/sbin/claim"
    board.write_file(MODPROBE, line + "\n")
    device = board.info("b000000.crypto")
    assert not device["next_boot"]["known"]
    assert device["next_boot"]["reason"] == (
        f"{MODPROBE}:1 has '{line}', so whether vfio_platform, which policy vfio of the "
        "last-applied configuration requires, is loaded depends on that command"
    )
    assert device["drift"] == []
    assert board.info("b002000.dma")["next_boot"]["known"]


def test_what_another_module_needs_is_loaded_though_blacklisted(board: Board) -> None:
    board.write_file(MODPROBE, "blacklist acme\n")
    board.kernel.put("module/acme/holders/acme_more", "")
    assert board.info("b000000.crypto")["next_boot"]["driver"] == "acme-crypto"
    board.write_file(MODPROBE, "install acme /bin/true\n")
    assert board.info("b000000.crypto")["next_boot"]["driver"] is None


def test_a_command_for_what_the_module_depends_on_keeps_it_away_too(board: Board) -> None:
    home = board.files_root / "lib/modules" / os.uname().release
    home.mkdir(parents=True)
    (home / "modules.dep").write_text("acme.ko: acme-core.ko\nacme-core.ko:\n")
    board.write_file(MODPROBE, "install acme_c* /bin/false\n")
    device = board.info("b000000.crypto")
    assert device["next_boot"]["driver"] is None
    assert device["next_boot"]["reason"] == (
        f"{MODPROBE}:1 has 'install acme_c* /bin/false', so the driver's module acme is not loaded"
    )
    board.write_file(MODPROBE, "install acme-core /root/claim\n")
    assert not board.info("b000000.crypto")["next_boot"]["known"]
    board.write_file(MODPROBE, "blacklist acme_core\ninstall acme_cor /bin/false\n")
    assert board.info("b000000.crypto")["next_boot"]["driver"] == "acme-crypto"


def test_a_command_for_modules_by_a_pattern_is_shown(board: Board) -> None:
    board.write_file(MODPROBE, "install ac?e /bin/false\ninstall acme /root/claim\n")
    device = board.info("b000000.crypto")
    assert device["next_boot"]["driver"] is None
    assert device["next_boot"]["known"]
    assert [line["location"] for line in device["module_configuration"]] == [
        f"{MODPROBE}:1",
        f"{MODPROBE}:2",
    ]


@pytest.fixture
def by_name(board: Board) -> Board:
    """The board with a device that matches its driver by name: udev loads no module for it."""
    driver = Driver("acme-clock", devices=("acme-clock",), module="acme_clock")
    add(board, BoardModule(name="acme_clock", drivers=(driver,)))
    board.kernel.add_device("acme-clock", "/acme-clock", ("acme,clock-v9",))
    return board


def test_a_module_that_nothing_loads_is_missing_at_the_next_boot(by_name: Board) -> None:
    assert why(by_name, "acme-clock") == (
        "name",
        "the device's name, acme-clock, is the driver's name",
    )
    device = by_name.info("acme-clock")
    assert device["next_boot"]["driver"] is None
    assert device["next_boot"]["reason"] == (
        "nothing loads the driver's module acme_clock: it does not match the device, and neither "
        "modules-load.d nor the kernel command line names it"
    )


@pytest.mark.parametrize(
    ("path", "content", "suffix"),
    [
        ("/etc/modules-load.d/a.conf", "; first\n# x\n acme-clock \n", ":3"),
        ("/usr/lib/modules-load.d/a.conf", "acme_clock\n", ":1"),
        (COMMAND_LINE, "quiet modules_load=x,acme-clock\n", ""),
        (COMMAND_LINE, "rd.modules_load=acme_clock\n", ""),
    ],
)
def test_somebody_can_have_it_loaded(by_name: Board, path: str, content: str, suffix: str) -> None:
    by_name.write_file(path, content)
    after = by_name.info("acme-clock")["next_boot"]
    assert after["driver"] == "acme-clock"
    assert f"{path}{suffix} loads the driver's module acme_clock" in after["reason"]


def test_a_file_that_is_hidden_has_nothing_loaded(by_name: Board) -> None:
    by_name.write_file("/usr/lib/modules-load.d/a.conf", "acme_clock\n")
    by_name.write_file("/etc/modules-load.d/a.conf", "")
    assert by_name.info("acme-clock")["next_boot"]["driver"] is None


def test_or_another_module_needs_it(by_name: Board) -> None:
    by_name.kernel.put("module/acme_clock/holders/acme_more", "")
    assert by_name.info("acme-clock")["next_boot"]["driver"] == "acme-clock"


SLOT = "a000000.virtio_mmio"


@pytest.fixture
def slots(board: Board) -> Board:
    """The board with two slots that match a driver, whose probe found them to be empty."""
    driver = Driver(
        "virtio-mmio",
        compatible=("virtio,mmio",),
        module="virtio_mmio",
        probe={SLOT: errno.ENODEV, "a001000.virtio_mmio": errno.ENODEV},
    )
    aliases = ("of:N*T*Cvirtio,mmio",)
    add(board, BoardModule(name="virtio_mmio", drivers=(driver,), aliases=aliases))
    for name, path in ((SLOT, "/virtio_mmio@a000000"), ("a001000.virtio_mmio", "/slot@a001000")):
        board.kernel.add_device(name, path, ("virtio,mmio",), iommus=True)
    return board


GIVEN = {"name": SLOT, "policy": "vfio"}


def give_slot(board: Board) -> None:
    """Bind the slot to VFIO; the first bind removes the sign that it never had a driver."""
    board.apply([GIVEN], reset_required=False)


def test_a_released_device_that_never_had_a_driver_does_not_drift(slots: Board) -> None:
    give_slot(slots)
    slots.apply([])
    assert slots.kernel.binding(SLOT) == (None, None)
    device = slots.info(SLOT)
    assert device["drift"] == []
    assert device["next_boot"] == {
        "driver": None,
        "driver_override": None,
        "known": False,
        "in_drift": False,
        "reason": "whether it was unbound from a driver while the system runs is unknown; the "
        "module virtio_mmio claims it",
    }


@pytest.mark.parametrize(
    ("name", "native"), [(SLOT, None), ("b000000.crypto", "acme-crypto"), ("soc:keys", "gpio-keys")]
)
def test_what_the_header_remembers_decides(slots: Board, name: str, native: str | None) -> None:
    """The last-applied list has `policy: default` for a device that is not bound yet."""
    header = f'# policy: {{"name": "{name}", "policy": "default"}}\n'
    stable = slots.kernel.link(f"bus/platform/devices/{name}/of_node") or ""
    path = stable.partition("devicetree/base")[2]
    header += f'# native: {{"{path}": {json.dumps(native)}}}\n'
    set_override(slots, name, "none")
    if slots.kernel.driver_of(name) == "acme-crypto":
        slots.kernel.write("bus/platform/drivers/acme-crypto/unbind", name)
    slots.write_file(RULES, f"{MARK}\n{header}")
    after = slots.info(name)["next_boot"]
    assert (after["driver"], after["known"]) == (native, True)


def test_a_device_that_never_had_a_driver_has_none_after_the_next_boot(slots: Board) -> None:
    device = slots.info(SLOT)
    assert device["next_boot"] == {
        "driver": None,
        "driver_override": None,
        "known": True,
        "in_drift": False,
        "reason": "the module virtio_mmio claims it, and no driver bound it",
    }
    assert device["drift"] == []


def test_a_device_that_lost_its_driver_may_get_it_back(board: Board) -> None:
    board.kernel.write("bus/platform/drivers/acme-crypto/unbind", "b000000.crypto")
    device = board.info("b000000.crypto")
    assert device["next_boot"]["known"] is False
    assert device["drift"] == []
    # A device without a firmware node has no waiting_for_supplier file.
    board.kernel.add_device("dummy")
    assert board.info("dummy")["next_boot"]["known"] is False


def test_a_built_in_driver_that_was_unbound_may_come_back(board: Board) -> None:
    """Most kernels do not export the aliases of built-in drivers, so no module matches."""
    board.kernel.register(Driver("acme-led", compatible=("acme,led",)))
    board.kernel.add_device("b00a000.led", "/soc/led@b00a000", ("acme,led",))
    board.kernel.write("bus/platform/drivers/acme-led/unbind", "b00a000.led")
    device = board.info("b00a000.led")
    assert device["next_boot"]["known"] is False
    assert device["drift"] == []
    set_override(board, "b00a000.led", "none")
    device = board.info("b00a000.led")
    assert device["next_boot"]["known"] is False
    assert len(device["drift"]) == 1


def test_a_native_driver_comes_again_whatever_override_was_set_since(board: Board) -> None:
    set_override(board, "b000000.crypto", "vfio-platform")
    device = board.info("b000000.crypto")
    assert (device["next_boot"]["driver"], device["next_boot"]["known"]) == ("acme-crypto", True)
    assert len(device["drift"]) == 1


def test_why_there_is_no_driver_is_told(board: Board) -> None:
    after = board.info("b004000.ethernet")["next_boot"]
    assert after["driver"] is None
    assert "udev loads the driver's module acme_eth, but" in after["reason"]
    assert not after["known"]
    board.write_file(MODPROBE, "blacklist acme_eth\n")
    device = board.info("b004000.ethernet")
    assert f"{MODPROBE}:1 has 'blacklist acme_eth'" in device["next_boot"]["reason"]
    assert device["module_configuration"] == [
        {"location": f"{MODPROBE}:1", "text": "blacklist acme_eth"}
    ]
    assert device["drift"] == []


@pytest.mark.parametrize("module", ["vfio_platform", "vfio-platform"])
def test_a_device_of_the_list_does_not_come_where_its_module_is_kept_away(
    board: Board, module: str
) -> None:
    board.apply([CRYPTO, DMA, AMBA], reset_required=False)
    board.write_file(MODPROBE, f"blacklist {module}\n")
    device = board.info("b000000.crypto")
    reason = (
        f"{MODPROBE}:1 has 'blacklist {module}', so vfio_platform, which policy vfio of the "
        "last-applied configuration requires, is not loaded"
    )
    assert device["next_boot"] == {
        "driver": None,
        "driver_override": "vfio-platform",
        "known": True,
        "in_drift": True,
        "reason": reason,
    }
    assert device["module_configuration"] == [
        {"location": f"{MODPROBE}:1", "text": f"blacklist {module}"}
    ]
    assert device["drift"][0].endswith(reason)
    for name in ("b002000.dma", "b008000.blob"):
        assert board.info(name)["drift"] == []


def test_a_parameter_that_others_set_otherwise_is_told(board: Board) -> None:
    board.apply([CRYPTO, DMA], reset_required=False)
    board.write_file(MODPROBE, "options vfio_platform reset_required=1\n")
    device = board.info("b000000.crypto")
    assert device["next_boot"]["driver"] == "vfio-platform"
    (sentence,) = device["drift"]
    assert sentence == (
        f"{MODPROBE}:1 sets vfio_platform.reset_required=1 at each boot, but the last-applied "
        "configuration sets 0"
    )
    assert board.info("b002000.dma")["drift"] == []
