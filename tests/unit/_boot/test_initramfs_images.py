# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run reads each rebuilt image, because an initramfs tool may report success wrongly."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from board import CRYPTO, DMA, Board
from test_initramfs import SETTINGS, TOOLS, host

from ansible_collections.armfleet.vfio.plugins.module_utils._boot import (
    initramfs,
    initramfs_images,
    last_applied,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.initramfs_images import (
    Ran,
    Rebuilt,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError

RUNNING = os.uname().release
NEXT = "9.9.9-arm64"
RULES = "etc/udev/rules.d/70-armfleet-vfio.rules"
OPTIONS = "etc/modprobe.d/armfleet-vfio.conf"
MODULES = ("vfio_iommu_type1", "vfio-platform", "vfio_platform_acme")


class Tool:
    """A fake of the commands of an initramfs tool; writes and lists images of a board."""

    def __init__(self, board: Board, name: str) -> None:
        self.board = board
        self.name = name
        self.code = 0
        self.output = ""
        self.updates = True
        self.kernels = [RUNNING]
        self.forgets: set[str] = set()
        self.keeps: set[str] = set()
        self.lister_code = 0
        self.calls: list[Sequence[str]] = []
        self.written = 1.0
        # Images elsewhere, by path.
        self.others: set[str] = set()
        self.updates_others = False

    def image(self, kernel: str) -> Path:
        return self.board.files_root / f"boot/initrd.img-{kernel}"

    def __call__(self, arguments: Sequence[str]) -> Ran:
        self.calls.append(arguments)
        if tuple(arguments[:-1]) in [tool.lister for tool in initramfs.TOOLS]:
            if arguments[-1] in self.others:
                return Ran(0, self.listing(RUNNING))
            kernel = arguments[-1].partition("-")[2]
            assert arguments[-1] == f"/boot/initrd.img-{kernel}"
            return Ran(self.lister_code, self.listing(kernel), "cpio: ?" * self.lister_code)
        for path in self.others if self.updates_others else ():
            (self.board.files_root / path[1:]).write_text("rebuilt")
        for kernel in self.kernels if self.updates else ():
            self.written += 1
            self.image(kernel).write_text(f"{self.written}")
            os.utime(self.image(kernel))
        return Ran(self.code, self.output, "no space" if self.code else "")

    def listing(self, kernel: str) -> str:
        names = {"bin/busybox", "etc/modules-load.d/armfleet-vfio.conf", *self.keeps}
        for path in (last_applied.RULES, last_applied.MODPROBE):
            if self.board.file(path):
                names.add(path[1:])
        reported = "".join(self.board.file(path) or "" for path in initramfs.PATHS)
        names |= {
            f"usr/lib/modules/{kernel}/kernel/drivers/{module}.ko.zst"
            for module in MODULES
            if module.replace("-", "_") in reported
        }
        kept = [name for name in sorted(names) if not any(part in name for part in self.forgets)]
        if self.name == "dracut":
            lines = [f"-rw-r--r--   1 root  root   84 Nov 26 00:00 {name}" for name in kept]
            return "Image: /boot/initrd.img: 9M\n" + "\n".join([*lines, "lrwxr bin -> usr/bin"])
        return "\n".join([".", "bin -> usr/bin", *kept])


@pytest.fixture(params=sorted(TOOLS))
def tool(request: pytest.FixtureRequest, tmp_path: Path) -> Tool:
    board = host(tmp_path, *TOOLS[request.param])
    board.apply([CRYPTO], **SETTINGS)
    return Tool(board, request.param)


def rebuild(tool: Tool, *, requires_image: bool = False, check_mode: bool = False) -> Rebuilt:
    return initramfs_images.rebuild(tool.board.host.files, tool, requires_image, check_mode)


def is_repeated(tool: Tool) -> bool:
    """Return whether the next run of the same list rebuilds again."""
    entries = [CRYPTO] if tool.board.file(last_applied.RULES) else []
    outcome = tool.board.apply(entries, **SETTINGS)
    assert not outcome.is_changed
    return outcome.initramfs.command is not None


def later(tool: Tool) -> None:
    """Move the times of all files of the host to the past, so that new files are newer."""
    for path in (*last_applied.PATHS, *initramfs.PATHS, initramfs.OUTDATED):
        file = tool.board.files_root / path[1:]
        if file.exists():
            os.utime(file, (1000, 1000))


def test_an_image_that_has_all_is_right(tool: Tool) -> None:
    later(tool)
    rebuilt = rebuild(tool)
    assert [(image.path, image.is_rebuilt) for image in rebuilt.images] == [
        (f"/boot/initrd.img-{RUNNING}", True)
    ]
    assert not rebuilt.problems
    assert not rebuilt.notes
    assert initramfs_images.result(rebuilt)["changed"]
    assert tool.board.file(initramfs.OUTDATED) is None
    assert not is_repeated(tool)


@pytest.mark.parametrize("says", ["", "update-initramfs: Not updating initramfs.\n"])
def test_a_tool_that_did_nothing_is_found_out(tool: Tool, says: str) -> None:
    """update-initramfs exits with 0 for update_initramfs=no, and for a read-only /boot."""
    tool.updates, tool.output = False, says
    (problem,) = rebuild(tool).problems
    assert problem.startswith(f"/boot/initrd.img-{RUNNING} was not rebuilt, although '")
    assert says.strip() in problem
    assert is_repeated(tool)


@pytest.mark.parametrize(
    ("forgotten", "named"),
    [
        ("rules.d", "/" + RULES),
        ("modprobe.d", "/" + OPTIONS),
        ("vfio-platform.ko", "module vfio_platform"),
        ("vfio_platform_acme", "module vfio_platform_acme"),
    ],
)
def test_what_is_missing_is_named_and_the_next_run_rebuilds(
    tool: Tool, forgotten: str, named: str
) -> None:
    later(tool)
    tool.forgets = {forgotten}
    (problem,) = rebuild(tool).problems
    assert problem.startswith(f"/boot/initrd.img-{RUNNING} lacks {named} after '")
    assert is_repeated(tool)
    tool.forgets = set()
    assert not rebuild(tool).problems
    assert not is_repeated(tool)


def test_what_a_release_left_is_named_and_the_next_run_rebuilds(tool: Tool) -> None:
    rebuild(tool)
    tool.board.apply([], **SETTINGS)
    tool.keeps = {RULES}
    (problem,) = rebuild(tool).problems
    assert f"/boot/initrd.img-{RUNNING} still contains {last_applied.RULES} after '" in problem
    assert is_repeated(tool)
    tool.keeps = set()
    assert not rebuild(tool).problems
    assert not is_repeated(tool)


def test_a_module_that_is_built_in_needs_to_be_in_no_image(tool: Tool) -> None:
    tool.board.write_file(
        f"/lib/modules/{RUNNING}/modules.builtin", "kernel/drivers/vfio/vfio-platform.ko\n"
    )
    tool.forgets = {"vfio-platform.ko"}
    assert not rebuild(tool).problems


def add_kernel(tool: Tool, modules: str) -> None:
    modules_of_next = tool.board.files_root / "lib/modules" / NEXT
    modules_of_next.mkdir()
    (modules_of_next / "modules.dep").write_text(modules)
    tool.board.write_file(f"/boot/vmlinuz-{NEXT}", "")
    tool.image(NEXT).write_text("")


def test_the_images_of_all_kernels_are_read(tool: Tool) -> None:
    """The boot loader chooses which kernel boots next."""
    dependencies = tool.board.file(f"/lib/modules/{RUNNING}/modules.dep") or ""
    add_kernel(tool, dependencies)
    (problem,) = rebuild(tool).problems
    assert problem.startswith(f"/boot/initrd.img-{NEXT} was not rebuilt")
    tool.kernels = [RUNNING, NEXT]
    rebuilt = rebuild(tool)
    assert sorted(image.kernel for image in rebuilt.images) == sorted([RUNNING, NEXT])
    assert not rebuilt.problems


def test_only_the_kernel_that_the_command_names_is_read(tool: Tool) -> None:
    """The command names the running kernel, which has no file if it was booted over network."""
    if tool.name != "initramfs-tools":
        pytest.skip("it goes by /lib/modules")
    add_kernel(tool, "")
    (tool.board.files_root / f"boot/vmlinuz-{RUNNING}").unlink()
    rebuilt = rebuild(tool)
    assert rebuilt.command[-1] == RUNNING
    assert [image.kernel for image in rebuilt.images] == [RUNNING]
    assert not rebuilt.problems


def test_a_directory_without_modules_is_no_kernel(tool: Tool) -> None:
    (tool.board.files_root / "lib/modules" / NEXT).mkdir()
    tool.image(NEXT).write_text("")
    assert not rebuild(tool).problems


def test_a_kernel_without_the_module_is_noted(tool: Tool) -> None:
    add_kernel(tool, "kernel/other.ko:\n")
    tool.kernels = [RUNNING, NEXT]
    tool.forgets = {f"{NEXT}/kernel"}
    rebuilt = rebuild(tool)
    assert not rebuilt.problems
    (note,) = rebuilt.notes
    assert note.startswith(f"Kernel {NEXT} is installed without the module vfio_iommu_type1, ")


@pytest.mark.parametrize("name", ["initrd.img-%s.bak", "initrd.img-%s.dpkg-bak", "initrd.img-1.2"])
def test_an_image_of_no_kernel_is_nobodys(tool: Tool, name: str) -> None:
    file = name.replace("%s", RUNNING)
    tool.board.write_file(f"/boot/{file}", "old")
    assert not rebuild(tool).problems


def test_a_listing_that_fails_leaves_nothing_green(tool: Tool) -> None:
    later(tool)
    tool.lister_code = 1
    (problem, *_missing) = rebuild(tool).problems
    assert f"/boot/initrd.img-{RUNNING} cannot be checked: '/usr/bin/" in problem
    assert "failed with exit code 1: " in problem
    assert is_repeated(tool)


def test_a_command_that_fails_is_told_with_its_last_lines(tool: Tool) -> None:
    tool.code = 4
    tool.output = "\n".join(f"line {number}" for number in range(20))
    with pytest.raises(PolicyError, match=r"failed with exit code 4: line 16; .*; no space\. "):
        rebuild(tool)
    # The image may be incomplete.
    assert is_repeated(tool)


def test_a_check_runs_nothing(tool: Tool) -> None:
    before = tool.board.everything()
    rebuilt = rebuild(tool, check_mode=True)
    assert initramfs_images.result(rebuilt)["changed"]
    assert not tool.calls
    assert tool.board.everything() == before


@pytest.mark.parametrize("check_mode", [False, True])
def test_without_an_image_nothing_is_done_and_nothing_is_said_to_be(
    tool: Tool, *, check_mode: bool
) -> None:
    if tool.name != "initramfs-tools":
        pytest.skip("it makes images by itself")
    tool.image(RUNNING).unlink()
    rebuilt = rebuild(tool, check_mode=check_mode)
    assert not initramfs_images.result(rebuilt)["changed"]
    assert rebuilt.notes == [initramfs.InitramfsTools.nothing_rebuilt]
    assert not tool.calls
    with pytest.raises(PolicyError, match=r"there is no /boot/initrd\.img"):
        rebuild(tool, requires_image=True, check_mode=check_mode)


TOKEN = "0123456789abcdef0123456789abcdef"
BLS = [
    *(f"/{directory}/{TOKEN}/{RUNNING}/initrd" for directory in ("boot", "boot/efi", "efi")),
    f"/boot/efi/debian/{RUNNING}/initrd",
    f"/boot/Default/{RUNNING}/initrd",
]
UKI = [
    f"/efi/EFI/Linux/{TOKEN}-{RUNNING}.efi",
    f"/boot/efi/EFI/Linux/debian-{RUNNING}+3-0.efi",
    f"/boot/EFI/Linux/linux-{RUNNING}-{TOKEN}-42.efi",
    f"/efi/EFI/Linux/{RUNNING}.efi",
]


def put_image(tool: Tool, path: str) -> None:
    """Put an image that the tool does not rebuild, of a kernel that kernel-install installed."""
    (tool.board.files_root / "etc/kernel").mkdir(parents=True)
    tool.board.write_file("/etc/machine-id", TOKEN + "\n")
    tool.board.write_file("/etc/kernel/entry-token", "debian\n")
    file = tool.board.files_root / path[1:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("1")


@pytest.mark.parametrize("path", [*BLS, *UKI])
def test_an_image_of_kernel_install_that_stays_old_is_named(tool: Tool, path: str) -> None:
    put_image(tool, path)
    tool.others = {path}
    (problem,) = [text for text in rebuild(tool).problems if text.startswith(path)]
    assert problem.startswith(f"{path} was not rebuilt, although '")
    assert problem.endswith(
        f"If kernel-install makes it, run 'kernel-install add {RUNNING} "
        f"/lib/modules/{RUNNING}/vmlinuz', or remove it if no boot entry uses it"
    )
    assert is_repeated(tool)


@pytest.mark.parametrize("path", [*BLS, *UKI])
def test_an_image_of_kernel_install_is_read_if_a_program_can(tool: Tool, path: str) -> None:
    put_image(tool, path)
    tool.others, tool.updates_others = {path}, True
    rebuilt = rebuild(tool)
    assert not rebuilt.problems
    assert path in [image.path for image in rebuilt.images]
    is_read = tool.name == "dracut" or path in BLS
    assert any(call[-1] == path for call in tool.calls) == is_read
    assert [note.partition(" was ")[0] for note in rebuilt.notes] == ([] if is_read else [path])


@pytest.mark.parametrize("name", [f"debian-{RUNNING}.efi.bak", f"debian-{RUNNING}0.efi", "x.efi"])
def test_a_unified_image_of_another_kernel_is_not_asked_for(tool: Tool, name: str) -> None:
    put_image(tool, "/efi/EFI/Linux/" + name)
    assert not rebuild(tool).problems


def test_dracut_that_puts_its_image_elsewhere(tmp_path: Path) -> None:
    board = host(tmp_path, *TOOLS["dracut"])
    board.apply([CRYPTO], **SETTINGS)
    tool = Tool(board, "dracut")
    tool.image(RUNNING).unlink()
    tool.updates = False
    rebuilt = rebuild(tool)
    assert (rebuilt.problems, rebuilt.notes) == ([], [initramfs.NOT_FOUND % "dracut"])
    assert rebuild(tool, requires_image=True).problems == [initramfs.NOT_FOUND % "dracut"]


def test_a_list_without_modules_needs_its_files_alone(tmp_path: Path) -> None:
    board = host(tmp_path, *TOOLS["initramfs-tools"])
    board.apply([DMA])
    tool = Tool(board, "initramfs-tools")
    assert not rebuild(tool).problems
    tool.forgets = {"rules.d"}
    assert rebuild(tool).problems


def test_a_host_without_a_tool_is_told_so(tmp_path: Path) -> None:
    tool = Tool(host(tmp_path), "")
    with pytest.raises(PolicyError, match=re.escape(initramfs.NO_TOOL)):
        rebuild(tool)


@pytest.mark.parametrize("sign", ["/run/ostree-booted", "/usr/bin/mkinitcpio"])
def test_the_images_of_another_tool_are_not_rebuilt(tmp_path: Path, sign: str) -> None:
    tool = Tool(host(tmp_path), "")
    path = tool.board.files_root / sign[1:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    named = ("This host is managed by ostree", "This host builds its initramfs with")
    with pytest.raises(PolicyError, match=f"^({'|'.join(named)}).*. Then set `initramfs: never`"):
        rebuild(tool)
    assert tool.calls == []


def test_nobody_but_root_rebuilds(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PolicyError, match="become: true"):
        rebuild(tool)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["/bin/sh", "-c", "echo a; echo b >&2; exit 3"], Ran(3, "a\n", "b\n")),
        (["/nowhere/tool"], Ran(127, "", "/nowhere/tool: No such file or directory")),
    ],
)
def test_a_program_is_run_to_its_end(arguments: list[str], expected: Ran) -> None:
    assert initramfs_images.run(arguments) == expected
