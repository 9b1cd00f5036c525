# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Addresses and default routes of this machine, by rtnetlink(7). Reads only."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Iterator, NamedTuple

_NETLINK_ROUTE = 0
_DUMP = 0x301
_DONE, _ERROR = 3, 2
_GET_ADDRESSES, _GET_ROUTES = 22, 26
_HEADER = struct.Struct("=IHHII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_OIF, _RTA_MULTIPATH = 4, 9
_RTN_UNICAST = 1


class Networks(NamedTuple):
    """What the kernel's tables say, by interface index."""

    addresses: dict[int, list[str]]
    default_routes: set[int]


def read() -> Networks:
    """Return addresses and interfaces of default routes; empty if the kernel reports none."""
    networks = Networks({}, set())
    with contextlib.suppress(OSError, ValueError, struct.error):
        for message in _dump(_GET_ADDRESSES):
            _add_address(networks, message)
        for message in _dump(_GET_ROUTES):
            _add_route(networks, message)
    return networks


def _dump(kind: int) -> Iterator[bytes]:
    with contextlib.closing(
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE)
    ) as asked:
        asked.settimeout(2)
        asked.send(_HEADER.pack(_HEADER.size + 4, kind, _DUMP, 1, 0) + bytes(4))
        while True:
            answer = asked.recv(65536)
            while answer:
                length, message_type, _flags, _sequence, _port = _HEADER.unpack_from(answer)
                if message_type in (_DONE, _ERROR) or length < _HEADER.size:
                    return
                yield answer[_HEADER.size : length]
                answer = answer[_aligned(length) :]


def _add_address(networks: Networks, message: bytes) -> None:
    family, _length, _flags, _scope, index = _ADDRESS.unpack_from(message)
    attributes = _attributes(message[_ADDRESS.size :])
    address = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    if address:
        networks.addresses.setdefault(index, []).append(socket.inet_ntop(family, address))


def _add_route(networks: Networks, message: bytes) -> None:
    _family, length, _src, _tos, _table, _protocol, _scope, kind, _flags = _ROUTE.unpack_from(
        message
    )
    if length or kind != _RTN_UNICAST:
        return
    attributes = _attributes(message[_ROUTE.size :])
    if _RTA_OIF in attributes:
        networks.default_routes.add(struct.unpack("=I", attributes[_RTA_OIF])[0])
    hops = attributes.get(_RTA_MULTIPATH, b"")
    while len(hops) >= 8:
        size, _flags, _weight, index = struct.unpack_from("=HBBi", hops)
        networks.default_routes.add(index)
        hops = hops[max(_aligned(size), 8) :]


def _attributes(content: bytes) -> dict[int, bytes]:
    attributes = {}
    while len(content) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(content)
        attributes[kind] = content[_ATTRIBUTE.size : length]
        content = content[max(_aligned(length), _ATTRIBUTE.size) :]
    return attributes


def _aligned(length: int) -> int:
    return (length + 3) & ~3
