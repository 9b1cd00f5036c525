# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ACPI's tables are the firmware's: nothing follows from damaged ones, and none stops a run.

What is concluded of others is compared with what the kernel does with the same tables.
"""

from __future__ import annotations

import struct
from random import Random

import pytest
from acpi_tables import (
    DISTRIBUTOR,
    ITS_GROUP,
    ITS_OF_GICV5,
    MSI_FRAME,
    NAMED_COMPONENT,
    PROCESSOR,
    ROOT_COMPLEX,
    SINGLE,
    SMMU_V3,
    TRANSLATOR,
    Mapping,
    Node,
    component,
    entry,
    gicv2,
    gicv3,
    iort,
    its_group,
    madt,
    root_complex,
    smmu,
    with_header,
)

from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.acpi_messages import (
    Gic,
    gic_of,
    senders_of,
)

SEEDS = range(20)
TABLES_PER_SEED = 150
PATH = "\\_SB_.DEV0"
WHOLE = iort(
    its_group(),
    smmu(Mapping(0, 0, 0xFFFF)),
    component(PATH, Mapping(1, flags=SINGLE)),
    root_complex(0, Mapping(1, 0, 0xFFFF)),
)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (gicv2(), Gic(has_its=False, has_frames=False)),
        (gicv2(MSI_FRAME), Gic(has_its=False, has_frames=True)),
        (gicv3(TRANSLATOR, TRANSLATOR), Gic(has_its=True, has_frames=False)),
        (gicv3(ITS_OF_GICV5), Gic(has_its=True, has_frames=False)),
        (gicv3(MSI_FRAME), Gic(has_its=False, has_frames=False)),
        # Entries of any other kind, such as those of an OEM, say nothing of it.
        (gicv3(0x80, 0xFF), Gic(has_its=False, has_frames=False)),
        (madt(entry(PROCESSOR)), Gic(has_its=False, has_frames=False)),
        (madt(entry(DISTRIBUTOR, version=2), entry(MSI_FRAME)), None),
    ],
    ids=range(8),
)
def test_the_gic_is_what_madt_lists(table: bytes, expected: Gic | None) -> None:
    assert gic_of(table) == expected


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"APIC",
        bytes(44),
        with_header(b"APIC", b""),
        gicv2(MSI_FRAME)[:-1],
        gicv2(MSI_FRAME) + b"\0",
        # An entry of no length would be the next one again, and one of 1 ends within its head.
        madt(entry(PROCESSOR), bytes([MSI_FRAME, 0])),
        madt(entry(PROCESSOR), bytes([MSI_FRAME, 1])),
        madt(entry(PROCESSOR), bytes([MSI_FRAME, 3])),
        madt(entry(PROCESSOR), bytes([MSI_FRAME])),
        # A distributor without its version.
        madt(entry(PROCESSOR), bytes([DISTRIBUTOR, 4, 0, 0])),
    ],
    ids=range(11),
)
def test_of_a_damaged_madt_nothing_follows(table: bytes) -> None:
    assert gic_of(table) is None


def patched(table: bytes, offset: int, content: bytes) -> bytes:
    return table[:offset] + content + table[offset + len(content) :]


# The first node is an ITS group of 24 bytes at 48, the second an SMMU of 88 bytes at 72.
@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"IORT",
        bytes(48),
        WHOLE[:-1],
        WHOLE + b"\0",
        with_header(b"IORT", b""),
        # More nodes than there are; none where the first one is said to be.
        patched(WHOLE, 36, struct.pack("<I", 0xFFFFFFFF)),
        patched(WHOLE, 40, struct.pack("<I", 0xFFFFFFFF)),
        patched(WHOLE, 40, struct.pack("<I", len(WHOLE) - 8)),
        # A node of no length, one that ends within its head, and one past the end.
        *(patched(WHOLE, 49, struct.pack("<H", length)) for length in (0, 15, 0xFFFF)),
        # The last one, at 72.
        patched(iort(its_group(), smmu()), 72 + 1, struct.pack("<H", 69)),
        # More mappings than the node has room for, and mappings behind it.
        patched(WHOLE, 72 + 8, struct.pack("<I", 2)),
        patched(WHOLE, 72 + 8, struct.pack("<I", 0xFFFFFFFF)),
        patched(WHOLE, 72 + 12, struct.pack("<I", 0xFFFFFFFF)),
        # A name without an end, and components too short for what they should have.
        iort(its_group(), Node(NAMED_COMPONENT, bytes(13) + b"A" * 8, [Mapping(0, 0x41414141)]))[
            :-20
        ],
        iort(its_group(), Node(NAMED_COMPONENT, bytes(4), [Mapping(0)]))[:-12],
        iort(its_group(), Node(ROOT_COMPLEX, b"", [Mapping(0)]))[:-1],
    ],
    ids=range(19),
)
def test_of_a_damaged_iort_nothing_follows(table: bytes) -> None:
    assert senders_of(table) is None


def test_a_name_ends_within_its_node() -> None:
    """Of one that does not, the kernel would read on in the next node."""
    letters = Mapping(0, 0x41414141, 0x41414141, 0x41414141, 0x41414141)
    node = Node(NAMED_COMPONENT, bytes(13) + b"AAAA", [letters])
    table = iort(its_group(), node)
    # The mapping's reference, which is the only field with zeros.
    assert senders_of(patched(table, len(table) - 8, b"\x41\x41\x41\x41")) is None


def test_mappings_that_lead_round_are_followed_once() -> None:
    around = [smmu(Mapping(1)), smmu(Mapping(0)), component(PATH, Mapping(0, flags=SINGLE))]
    senders = senders_of(iort(*around))
    assert senders is not None
    assert not senders.has_component(PATH)
    itself = senders_of(iort(smmu(Mapping(0)), component(PATH, Mapping(0), Mapping(1))))
    assert itself is not None
    assert not itself.has_component(PATH)


def test_the_longest_chain_and_the_most_mappings_take_no_time() -> None:
    """Each node and mapping is visited once: this would be 10**9 steps, and a stack of 20,000."""
    chain = [smmu(Mapping(number + 1)) for number in range(20_000)]
    many = component(PATH, *[Mapping(number, flags=SINGLE) for number in range(3_000)])
    senders = senders_of(iort(*chain, its_group(), many))
    assert senders is not None
    assert senders.has_component(PATH)


@pytest.mark.parametrize("name", ["", "x", ":", "zz:00:00.0", "-1:00:00.0"])
def test_a_name_that_is_no_pci_address_says_nothing(name: str) -> None:
    senders = senders_of(WHOLE)
    assert senders is not None
    assert senders.has_function(name) is (name != "-1:00:00.0")


def random_nodes(random: Random) -> list[Node]:
    """Return nodes whose mappings lead anywhere, each path of a component and segment once."""
    count = random.randint(1, 7)
    nodes = []
    for number in range(count):
        kind = random.choice([ITS_GROUP, SMMU_V3, SMMU_V3, NAMED_COMPONENT, ROOT_COMPLEX, 5])
        mappings = [
            Mapping(
                # One more than there are is a reference to no node (0).
                random.randint(0, count + 1),
                random.randint(0, 3),
                random.randint(0, 3),
                random.randint(0, 3),
                random.choice([0, SINGLE]),
            )
            for _index in range(random.choice([0, 1, 1, 2, 3]))
        ]
        if kind == NAMED_COMPONENT:
            nodes.append(component(f"\\_SB_.N{number}", *mappings))
        elif kind == ROOT_COMPLEX:
            nodes.append(root_complex(number, *mappings))
        else:
            nodes.append(Node(kind, bytes(8), mappings))
    return nodes


def translated(mapping: Mapping, kind: int, number: int, is_again: bool) -> tuple[str, int]:
    """Translate an ID by one mapping, as iort_id_map of drivers/acpi/arm64/iort.c does."""
    if mapping.flags & SINGLE:
        is_allowed = kind in (NAMED_COMPONENT, ROOT_COMPLEX)
        return ("done", mapping.output) if is_allowed else ("none", 0)
    last = mapping.first + mapping.count
    if not mapping.first <= number <= last or (is_again and number != mapping.first):
        return "none", 0
    at_end = mapping.count > 0 and number == last
    return ("again" if at_end else "done"), mapping.output + number - mapping.first


def reaches_its(nodes: list[Node], at: int, number: int) -> bool:
    """Follow mappings from a node as iort_node_map_id does; it would not return from a circle."""
    for _step in range(100):
        if at >= len(nodes):
            return False
        node = nodes[at]
        if node.kind == ITS_GROUP:
            return True
        if not node.mappings or node.mappings[0].node >= len(nodes):
            return False
        leads: int | None = None
        given = number
        for mapping in node.mappings:
            answer, value = translated(mapping, node.kind, given, leads is not None)
            if answer != "none":
                leads, number = mapping.node, value
            if answer == "done":
                break
        if leads is None:
            return False
        at = leads
    return False


def component_reaches_its(nodes: list[Node], at: int) -> bool:
    """Return what iort_node_map_platform_id comes to for any mapping of a component."""
    return any(
        reaches_its(nodes, mapping.node, mapping.output)
        for mapping in nodes[at].mappings
        if mapping.flags & SINGLE
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_no_device_that_the_kernel_connects_with_an_its_is_said_to_have_none(seed: int) -> None:
    random = Random(seed)
    reached = unreached = 0
    for _index in range(TABLES_PER_SEED):
        nodes = random_nodes(random)
        senders = senders_of(iort(*nodes))
        assert senders is not None
        for at, node in enumerate(nodes):
            if node.kind == NAMED_COMPONENT:
                is_reached = component_reaches_its(nodes, at)
                may_be = senders.has_component(f"\\_SB_.N{at}")
            elif node.kind == ROOT_COMPLEX:
                is_reached = any(reaches_its(nodes, at, number) for number in range(8))
                may_be = senders.has_function(f"{at:04x}:00:00.0")
            else:
                continue
            assert may_be or not is_reached
            reached += is_reached
            unreached += not may_be
    # Both occur, so that neither answer is given for all.
    assert reached > 5
    assert unreached > 5


@pytest.mark.parametrize("seed", SEEDS)
def test_changed_bytes_of_a_table_raise_nothing(seed: int) -> None:
    random = Random(seed)
    for table in (WHOLE, gicv3(TRANSLATOR, MSI_FRAME), iort(*random_nodes(random))):
        for _index in range(TABLES_PER_SEED):
            changed = bytearray(table)
            for _index in range(random.randint(1, 6)):
                changed[random.randrange(len(changed))] = random.choice([0, 1, 15, 0x7F, 0xFF])
            if random.random() < 0.3:
                del changed[random.randrange(len(changed)) :]
                if len(changed) > 8 and random.random() < 0.8:
                    changed[4:8] = struct.pack("<I", len(changed))
            gic_of(bytes(changed))
            senders_of(bytes(changed))
