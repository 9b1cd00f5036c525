"""A .dtb is parsed into a tree, or refused with a message of one line."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import libfdt
import pytest

from extensions.simulator.devicetree import Node
from extensions.simulator.dtb import read, read_file
from extensions.simulator.errors import SimulatorError

DAMAGES = 2000


@pytest.fixture(scope="module")
def blob() -> bytes:
    """A .dtb of a board with a bus, two devices and each kind of property."""
    writer = libfdt.FdtSw()
    writer.finish_reservemap()
    with writer.add_node(""):
        writer.property("compatible", b"acme,board\0acme,family\0")
        writer.property_u32("#address-cells", 1)
        with writer.add_node("soc"):
            writer.property("ranges", b"")
            with writer.add_node("dma@b001000"):
                writer.property("reg", bytes.fromhex("0b001000 00001000"))
                writer.property_string("status", "okay")
            with writer.add_node("crypto@b000000"):
                writer.property("reg", bytes.fromhex("0b000000 00001000"))
        with writer.add_node("aliases"):
            writer.property_string("crypto0", "/soc/crypto@b000000")
    tree = writer.as_fdt()
    tree.pack()
    return bytes(tree.as_bytearray()[: tree.totalsize()])


@pytest.fixture
def root(blob: bytes) -> Node:
    return read(blob)


def nested(depth: int, name: str = "n") -> bytes:
    """Return a .dtb with one node at each of ``depth`` levels below the root."""
    writer = libfdt.FdtSw()
    writer.finish_reservemap()
    writer.begin_node("")
    for _level in range(depth):
        writer.begin_node(name)
    for _level in range(depth + 1):
        writer.end_node()
    return bytes(writer.as_fdt().as_bytearray())


def with_nodes(*names: str, prop: str = "p") -> bytes:
    """Return a .dtb with these nodes and a property of the root."""
    writer = libfdt.FdtSw()
    writer.finish_reservemap()
    with writer.add_node(""):
        writer.property_u32(prop, 1)
        for name in names:
            with writer.add_node(name):
                pass
    return bytes(writer.as_fdt().as_bytearray())


def test_nodes_are_where_the_file_has_them_and_in_its_order(root: Node) -> None:
    assert [node.path for node in root.walk()] == [
        "/",
        "/soc",
        "/soc/dma@b001000",
        "/soc/crypto@b000000",
        "/aliases",
    ]


def test_a_node_knows_its_name_its_parent_and_its_children(root: Node) -> None:
    soc = root.children[0]
    assert (root.name, root.parent) == ("", None)
    assert (soc.name, soc.parent) == ("soc", root)
    assert [child.name for child in soc.children] == ["dma@b001000", "crypto@b000000"]


def test_properties_are_raw_and_in_the_order_of_the_file(root: Node) -> None:
    assert list(root.properties) == ["compatible", "#address-cells"]
    assert root.properties["#address-cells"] == b"\0\0\0\1"
    assert root.children[0].properties == {"ranges": b""}


def test_a_list_of_strings_is_split(root: Node) -> None:
    assert root.strings("compatible") == ("acme,board", "acme,family")


@pytest.mark.parametrize(
    ("raw", "strings"),
    [
        (b"", ()),
        (b"\0", ("",)),
        (b"a\0\0", ("a", "")),
        (b"unended", ("unended",)),
        (b"\xff\0", ("\udcff",)),
    ],
)
def test_odd_lists_of_strings_are_read_as_linux_reads_them(
    raw: bytes, strings: tuple[str, ...]
) -> None:
    assert Node("", properties={"p": raw}).strings("p") == strings


def test_numbers_are_big_endian_cells_and_a_rest_is_none(root: Node) -> None:
    assert root.children[0].children[0].cells("reg") == (0x0B001000, 0x1000)
    assert Node("", properties={"p": b"\0\0\0\1\0\0"}).cells("p") == (1,)


def test_a_property_that_is_not_there_has_neither_strings_nor_numbers(root: Node) -> None:
    assert root.strings("nothing") == ()
    assert root.cells("nothing") == ()


def test_of_two_properties_with_one_name_the_first_counts() -> None:
    writer = libfdt.FdtSw()
    writer.finish_reservemap()
    with writer.add_node(""):
        writer.property_u32("p", 1)
        writer.property_u32("p", 2)
    assert read(bytes(writer.as_fdt().as_bytearray())).cells("p") == (1,)


def test_what_follows_the_tree_in_the_file_does_not_matter(blob: bytes) -> None:
    assert [node.path for node in read(blob + b"more").walk()][1] == "/soc"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda _blob: b"", "is empty"),
        (lambda _blob: b"#!/bin/sh\n", "is not a device tree (its first bytes are not d00dfeed)"),
        (lambda blob: blob[:2], "is truncated: it has 2 bytes, less than a header"),
        (lambda blob: blob[:7], "is truncated: it has 7 bytes, less than a header"),
        (
            lambda blob: blob[:-1],
            "is truncated: its header has SIZE bytes, the file has LESS",
        ),
        (
            lambda blob: blob[:20] + b"\0\0\0\1" + blob[24:],
            "is a damaged device tree (FDT_ERR_BADVERSION)",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(
    blob: bytes, damage: object, message: str
) -> None:
    assert callable(damage)
    numbers = {"SIZE": len(blob), "LESS": len(blob) - 1}
    wanted = re.sub("SIZE|LESS", lambda match: str(numbers[match[0]]), message)
    with pytest.raises(SimulatorError) as error:
        read(damage(blob))
    assert str(error.value) == wanted


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (with_nodes("a", "a"), "/ has 'a' twice"),
        (with_nodes("p"), "/ has 'p' twice"),
        (with_nodes(".."), "/ has a part '..'"),
        (with_nodes("a/b"), "/ has a part 'a/b'"),
        (with_nodes(prop=""), "/ has a part ''"),
    ],
)
def test_names_that_could_not_be_in_sys_are_damage(blob: bytes, message: str) -> None:
    with pytest.raises(SimulatorError, match=re.escape(message)):
        read(blob)


def test_a_tree_as_deep_as_linux_reads_is_read() -> None:
    assert sum(1 for _node in read(nested(62)).walk()) == 63


@pytest.mark.parametrize("depth", [63, 5000])
def test_a_deeper_tree_is_refused(depth: int) -> None:
    with pytest.raises(SimulatorError, match="deeper than Linux reads"):
        read(nested(depth))


def damaged(blob: bytes, number: int) -> bytes:
    """Return the file with random damage; ``number`` is the seed."""
    chance = random.Random(number)
    broken = bytearray(blob)
    if chance.random() < 0.2:
        return bytes(broken[: chance.randrange(len(broken))])
    for _time in range(chance.choice((1, 1, 2, 5, 50))):
        index = chance.randrange(len(broken))
        broken[index] ^= 1 << chance.randrange(8)
    return bytes(broken)


def test_a_damaged_file_gives_a_tree_or_one_line(blob: bytes) -> None:
    trees = 0
    messages = []
    for number in range(DAMAGES):
        try:
            trees += bool(list(read(damaged(blob, number)).walk()))
        except SimulatorError as error:
            messages.append(str(error))
    assert trees
    assert messages
    assert not [message for message in messages if "\n" in message]


@pytest.fixture
def files(tmp_path: Path, blob: bytes) -> Iterator[Path]:
    (tmp_path / "board.dtb").write_bytes(blob)
    (tmp_path / "empty.dtb").write_bytes(b"")
    return tmp_path


def test_a_file_is_read(files: Path) -> None:
    assert read_file(files / "board.dtb").children[0].name == "soc"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty.dtb", "{} is empty"),
        ("nothing.dtb", "Cannot read {}: No such file or directory"),
        (".", "Cannot read {}: Is a directory"),
    ],
)
def test_the_message_names_the_file(files: Path, name: str, message: str) -> None:
    with pytest.raises(SimulatorError) as error:
        read_file(files / name)
    assert str(error.value) == message.format(files / name)
