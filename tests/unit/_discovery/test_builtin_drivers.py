"""A run reports the kernel parameter that keeps a built-in native driver from its devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from board import CRYPTO, Board, acme_board
from simulated_kernel import Driver

SYMBOLS = """\
0000000000000000 T acme_init
0000000000000000 d __initcall__kmod_acme_other__201_33_acme_other_init6
0000000000000000 d __initcall__kmod_acme__202_714_acme_init26
0000000000000000 d __initcall__kmod_8250__203_12_serial8250_init3s
0000000000000000 t ext_init\t[ext]
"""


@pytest.fixture
def board(tmp_path: Path) -> Board:
    board = acme_board(tmp_path)
    (board.files_root / "proc").mkdir()
    board.write_file("/proc/kallsyms", SYMBOLS)
    return board


def build_in(board: Board) -> None:
    """Show a module in /sys as Linux shows a built-in one."""
    board.kernel.remove("module/acme/initstate")


def test_the_words_are_the_init_function_of_the_driver(board: Board) -> None:
    build_in(board)
    (binding,) = board.check([CRYPTO], reset_required=False).builtin
    assert binding.driver == "acme-crypto"
    assert binding.parameter == "initcall_blacklist=acme_init2"
    assert "This also keeps the driver from other devices: b001000.crypto" in binding.sentence


def test_a_driver_without_a_link_is_that_of_the_module_of_its_name(board: Board) -> None:
    build_in(board)
    board.kernel.remove("bus/platform/drivers/acme-crypto/module")
    del board.kmod.modules["acme"]
    board.write_file("/proc/kallsyms", SYMBOLS.replace("kmod_acme_other", "kmod_acme_crypto"))
    (binding,) = board.check([CRYPTO], reset_required=False).builtin
    assert binding.parameter == "initcall_blacklist=acme_other_init"


def test_a_driver_that_is_a_module_needs_no_words(board: Board) -> None:
    assert board.check([CRYPTO], reset_required=False).builtin == []


def test_a_kernel_that_does_not_tell_is_not_guessed_at(board: Board) -> None:
    build_in(board)
    board.write_file("/proc/kallsyms", "0000000000000000 T acme_init\n")
    (binding,) = board.check([CRYPTO], reset_required=False).builtin
    assert binding.parameter is None
    assert "this kernel does not expose the function's name" in binding.sentence


def test_nothing_is_said_where_nothing_is_kept_for_the_next_boot(board: Board) -> None:
    build_in(board)
    assert board.check([CRYPTO], reset_required=False, persistent=False).builtin == []


SCREEN: dict[str, Any] = {"dt_path": "/chosen/framebuffer@9c000000", "policy": "no_autobind"}


def with_screen(board: Board, symbols: str) -> None:
    """Add the screen that the firmware set up, with its driver built in."""
    compatible = ("simple-framebuffer",)
    board.kernel.register(Driver("simple-framebuffer", compatible=compatible))
    board.kernel.add_device("9c000000.framebuffer", SCREEN["dt_path"], compatible)
    board.write_file("/proc/kallsyms", f"0000000000000000 {symbols}\n")


@pytest.mark.parametrize(
    ("module", "function"),
    [("simpledrm", "simpledrm_platform_driver_init"), ("simplefb", "simplefb_driver_init")],
)
def test_the_driver_of_the_screen_is_that_which_the_kernel_has(
    board: Board, module: str, function: str
) -> None:
    """simple-framebuffer is the name of two drivers, and of none of their modules."""
    with_screen(board, f"d __initcall__kmod_{module}__412_1064_{function}6")
    (binding,) = board.check([SCREEN], allow=["console"]).builtin
    assert binding.driver == "simple-framebuffer"
    assert binding.parameter == f"initcall_blacklist={function}"


def test_a_screen_whose_driver_has_no_known_function_is_said_to_be_unknown(board: Board) -> None:
    with_screen(board, "T simpledrm_probe")
    (binding,) = board.check([SCREEN], allow=["console"]).builtin
    assert binding.parameter is None
    assert "this kernel does not expose the function's name" in binding.sentence
