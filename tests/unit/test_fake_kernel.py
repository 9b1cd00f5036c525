"""The fake kernel acts as the project's kernel facts say that the real one does."""

from __future__ import annotations

import errno

import pytest
from board import Board
from fake_kernel import BLOCK, EPROBE_DEFER, NOIOMMU, Driver, FakeKernel, Module, snapshot

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import (
    KernelBlockedError,
    KernelRefusedError,
)

CRYPTO = "b000000.crypto"
DEVICE = f"bus/platform/devices/{CRYPTO}"
NATIVE = "bus/platform/drivers/acme-crypto"
VFIO = "bus/platform/drivers/vfio-platform"


@pytest.fixture
def kernel(board: Board) -> FakeKernel:
    return board.kernel


def code_of(kernel: FakeKernel, path: str, text: str) -> int:
    """The errno of a write; 0 for success."""
    try:
        kernel.write(path, text)
    except KernelRefusedError as error:
        return error.code
    return 0


def free(kernel: FakeKernel) -> None:
    kernel.write(f"{NATIVE}/unbind", CRYPTO)


def offer_to_vfio(board: Board, reset_required: str = "N") -> None:
    board.kmod.load("vfio-platform", {"reset_required": reset_required})
    free(board.kernel)
    board.kernel.write(f"{DEVICE}/driver_override", "vfio-platform\n")


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("none", "none"),
        ("foo\nbar", "foo"),
        ("abc\0def", "abc"),
        ("foo  ", "foo  "),
        ("\n", "(null)"),
        ("\nfoo", "(null)"),
        ("\0", "(null)"),
        ("", "before"),
    ],
)
def test_an_override_is_stored_as_the_kernel_stores_it(
    kernel: FakeKernel, written: str, stored: str
) -> None:
    kernel.write(f"{DEVICE}/driver_override", "before")
    kernel.write(f"{DEVICE}/driver_override", written)
    assert (kernel.tree / DEVICE / "driver_override").read_text() == stored + "\n"


def test_an_override_takes_4094_bytes_and_no_more(kernel: FakeKernel) -> None:
    assert code_of(kernel, f"{DEVICE}/driver_override", "x" * 4094) == 0
    assert code_of(kernel, f"{DEVICE}/driver_override", "x" * 4095) == errno.EINVAL


def test_an_override_alone_moves_nothing(kernel: FakeKernel) -> None:
    kernel.write(f"{DEVICE}/driver_override", "vfio-platform")
    assert kernel.driver_of(CRYPTO) == "acme-crypto"


def test_a_set_override_keeps_the_native_driver_off(kernel: FakeKernel) -> None:
    free(kernel)
    kernel.write(f"{DEVICE}/driver_override", "none")
    assert code_of(kernel, "bus/platform/drivers_probe", CRYPTO) == 0
    assert kernel.driver_of(CRYPTO) is None
    assert code_of(kernel, f"{NATIVE}/bind", CRYPTO) == errno.ENODEV


def test_bind_and_unbind_refuse_with_the_kernels_errnos(kernel: FakeKernel) -> None:
    assert code_of(kernel, f"{NATIVE}/bind", "nothing") == errno.ENODEV
    assert code_of(kernel, f"{NATIVE}/bind", CRYPTO) == errno.EBUSY
    assert code_of(kernel, f"{NATIVE}/unbind", "b002000.dma") == errno.ENODEV
    assert code_of(kernel, "bus/platform/drivers/gone/bind", CRYPTO) == errno.ENOENT
    assert code_of(kernel, "bus/platform/drivers_probe", "nothing") == errno.ENODEV


def test_a_deferring_probe_is_eagain_for_bind_and_einval_for_drivers_probe(
    kernel: FakeKernel,
) -> None:
    kernel.register(Driver("late", failures={CRYPTO: EPROBE_DEFER}))
    free(kernel)
    kernel.write(f"{DEVICE}/driver_override", "late")
    assert code_of(kernel, "bus/platform/drivers/late/bind", CRYPTO) == errno.EAGAIN
    assert code_of(kernel, "bus/platform/drivers_probe", CRYPTO) == errno.EINVAL


def test_drivers_probe_hides_a_failed_probe(kernel: FakeKernel) -> None:
    kernel.register(Driver("bad", failures={CRYPTO: errno.EIO}))
    free(kernel)
    kernel.write(f"{DEVICE}/driver_override", "bad")
    assert code_of(kernel, "bus/platform/drivers/bad/bind", CRYPTO) == errno.EIO
    assert code_of(kernel, "bus/platform/drivers_probe", CRYPTO) == 0
    assert kernel.driver_of(CRYPTO) is None


def test_a_driver_binds_what_waits_for_it_when_it_is_registered(kernel: FakeKernel) -> None:
    free(kernel)
    kernel.write(f"{DEVICE}/driver_override", "new")
    kernel.register(Driver("new"))
    assert kernel.driver_of(CRYPTO) == "new"


def test_with_autoprobe_off_nothing_binds_at_registration(kernel: FakeKernel) -> None:
    free(kernel)
    kernel.write("bus/platform/drivers_autoprobe", "0")
    kernel.write(f"{DEVICE}/driver_override", "new")
    kernel.register(Driver("new"))
    assert kernel.driver_of(CRYPTO) is None


def test_some_drivers_have_no_bind_and_no_unbind(kernel: FakeKernel) -> None:
    assert kernel.driver_of("soc:keys") == "gpio-keys"
    assert kernel.names("bus/platform/drivers/gpio-keys") == ["soc:keys"]


def test_unbinding_a_supplier_unbinds_its_consumers_and_rebinding_reprobes_them(
    kernel: FakeKernel,
) -> None:
    kernel.add_link(CRYPTO, "b002000.dma")
    free(kernel)
    assert kernel.driver_of("b002000.dma") is None
    kernel.write(f"{NATIVE}/bind", CRYPTO)
    assert kernel.driver_of("b002000.dma") == "acme-dma"


def test_vfio_platform_wants_a_reset_function_unless_told_otherwise(board: Board) -> None:
    offer_to_vfio(board, reset_required="Y")
    assert code_of(board.kernel, f"{VFIO}/bind", CRYPTO) == errno.ENOENT


def test_linux_before_6_3_wants_a_reset_function_all_the_same(board: Board) -> None:
    board.kernel.has_reset_bug = True
    offer_to_vfio(board)
    assert code_of(board.kernel, f"{VFIO}/bind", CRYPTO) == errno.ENOENT


def test_a_device_bound_to_vfio_has_nodes_by_its_group(board: Board) -> None:
    offer_to_vfio(board)
    board.kernel.write(f"{VFIO}/bind", CRYPTO)
    group = board.kernel.link_name(f"{DEVICE}/iommu_group")
    assert board.kernel.exists(f"class/vfio/{group}")
    assert f"/dev/vfio/{group}" in board.nodes()
    board.kernel.write(f"{VFIO}/unbind", CRYPTO)
    assert not board.kernel.exists(f"class/vfio/{group}")
    assert not board.nodes()


def test_vfio_needs_a_group_or_noiommu(board: Board) -> None:
    kernel = board.kernel
    board.kmod.load("vfio-platform", {"reset_required": "N"})
    kernel.write("bus/platform/drivers/acme-dma/unbind", "b002000.dma")
    kernel.write("bus/platform/devices/b002000.dma/driver_override", "vfio-platform")
    assert code_of(kernel, f"{VFIO}/bind", "b002000.dma") == errno.EINVAL
    kernel.write(NOIOMMU, "1")
    assert code_of(kernel, f"{VFIO}/bind", "b002000.dma") == 0
    group = kernel.link_name("bus/platform/devices/b002000.dma/iommu_group")
    assert kernel.exists(f"class/vfio/noiommu-{group}")
    assert kernel.read(f"kernel/iommu_groups/{group}/name") == "vfio-noiommu"
    kernel.write(f"{VFIO}/unbind", "b002000.dma")
    assert kernel.link("bus/platform/devices/b002000.dma/iommu_group") is None


def test_a_group_is_made_when_the_first_driver_is_tried(board: Board) -> None:
    assert board.kernel.link("devices/platform/b004000.ethernet/iommu_group") is None
    board.kmod.load("acme_eth")
    assert board.kernel.link("devices/platform/b004000.ethernet/iommu_group")


def test_newer_kernels_make_groups_at_boot(grouped_board: Board) -> None:
    assert grouped_board.kernel.link("devices/platform/b004000.ethernet/iommu_group")


def test_unbinding_an_open_device_hangs_with_the_link_gone_already(board: Board) -> None:
    offer_to_vfio(board)
    board.kernel.write(f"{VFIO}/bind", CRYPTO)
    board.kernel.held_open.add("/dev/vfio/1")
    with pytest.raises(KernelBlockedError):
        board.kernel.write(f"{VFIO}/unbind", CRYPTO)
    assert board.kernel.driver_of(CRYPTO) is None


def test_unloading_a_module_unbinds_its_devices_and_takes_out_what_only_it_needed(
    board: Board,
) -> None:
    before = snapshot(board.kernel.tree / "module")
    offer_to_vfio(board)
    board.kernel.write(f"{VFIO}/bind", CRYPTO)
    board.kmod.unload("vfio-platform")
    assert board.kernel.driver_of(CRYPTO) is None
    assert snapshot(board.kernel.tree / "module") == before


def test_a_module_that_another_one_needs_cannot_be_unloaded(board: Board) -> None:
    board.kmod.modules["user"] = Module("user", needs=("acme",))
    board.kmod.load("user")
    with pytest.raises(PolicyError, match="in use"):
        board.kmod.unload("acme")


def test_a_write_can_be_told_to_fail_to_hang_or_to_come_second(kernel: FakeKernel) -> None:
    seen: list[str | None] = []
    kernel.answer(1, errno.EIO)
    kernel.answer(2, BLOCK)
    kernel.answer((f"{NATIVE}/unbind", CRYPTO), lambda: seen.append(kernel.driver_of(CRYPTO)))
    assert code_of(kernel, f"{NATIVE}/unbind", "x") == errno.EIO
    with pytest.raises(KernelBlockedError):
        kernel.write(f"{NATIVE}/unbind", "y")
    assert code_of(kernel, f"{NATIVE}/unbind", CRYPTO) == 0
    assert seen == ["acme-crypto"]
    assert [text for _path, text in kernel.writes] == ["x", "y", CRYPTO]
