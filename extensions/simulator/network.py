# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Interfaces of the kernel for described ones, so that their addresses and routes can be read.

They are tap devices without a peer, in a network namespace of their own, and send to nobody.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

from .errors import SimulatorError

# include/uapi/linux/if_tun.h
_SET_INTERFACE, _SET_PERSISTENT, _SET_INDEX = 0x400454CA, 0x400454CB, 0x400454DA
_TAP, _NO_PACKET_INFO = 0x0002, 0x1000
# include/uapi/linux/rtnetlink.h, netlink.h and if_addr.h
_NEW_LINK, _NEW_ADDRESS, _NEW_ROUTE = 16, 20, 24
_REQUEST, _ACKNOWLEDGE, _REPLACE, _CREATE = 0x1, 0x4, 0x100, 0x400
_ADDRESS, _LOCAL, _OUTGOING, _MAC = 1, 2, 4, 1
_NO_DETECTION = 0x02
_MAIN_TABLE, _STATIC, _LINK_SCOPE, _UNICAST = 254, 4, 253, 1
_UP = 0x1
_HEADER = struct.Struct("=IHHII")
_LOOPBACK = 1


class Interface(NamedTuple):
    """An interface that is up; ``number`` is its index, an address is such as "192.0.2.7/24"."""

    name: str
    number: int
    mac: str
    addresses: Sequence[str]
    has_default_route: bool


def create(interfaces: Sequence[Interface]) -> None:
    """Create interfaces in the network namespace of this process; raise SimulatorError."""
    for interface in interfaces:
        try:
            _create_tap(interface)
            with closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)) as connection:
                _configure(connection, interface)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise SimulatorError(
                f"Cannot create network interface {interface.name} of a described device: {reason}"
            ) from None


def create_in(pid: int, interfaces: Sequence[Interface]) -> None:
    """Create interfaces in the network namespace of a process, unless it is that of this one."""
    try:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    except OSError as error:
        raise SimulatorError(f"Process {pid} has no network: {error.strerror}") from None
    try:
        if os.path.samestat(os.fstat(namespace), os.stat("/proc/self/ns/net")):
            raise SimulatorError(
                f"Process {pid} shares the network of this machine. Use `podman_network: none`"
            )
        _enter(namespace)
    finally:
        os.close(namespace)
    create(interfaces)


def _enter(namespace: int) -> None:
    from .namespace import enter_network  # noqa: PLC0415 - the core does not load the C library

    enter_network(namespace)


def _create_tap(interface: Interface) -> None:
    control = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(control, _SET_INDEX, struct.pack("I", interface.number))
        request = struct.pack("16sH22x", interface.name.encode(), _TAP | _NO_PACKET_INFO)
        fcntl.ioctl(control, _SET_INTERFACE, request)
        fcntl.ioctl(control, _SET_PERSISTENT, 1)
    finally:
        os.close(control)


def _configure(connection: socket.socket, interface: Interface) -> None:
    index = interface.number
    _set_up(connection, _LOOPBACK)
    _set_up(connection, index, _attribute(_MAC, bytes.fromhex(interface.mac.replace(":", ""))))
    addresses = [ipaddress.ip_interface(address) for address in interface.addresses]
    for address in addresses:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        prefix = address.network.prefixlen
        head = struct.pack("=BBBBI", family, prefix, _NO_DETECTION, 0, index)
        raw = address.ip.packed
        body = head + _attribute(_LOCAL, raw) + _attribute(_ADDRESS, raw)
        _ask(connection, _NEW_ADDRESS, _CREATE | _REPLACE, body)
    if interface.has_default_route:
        versions = {address.version for address in addresses} or {4}
        for version in sorted(versions):
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            scope = _LINK_SCOPE if version == 4 else 0
            route = (family, 0, 0, 0, _MAIN_TABLE, _STATIC, scope, _UNICAST, 0)
            body = struct.pack("=8BI", *route) + _attribute(_OUTGOING, struct.pack("=I", index))
            _ask(connection, _NEW_ROUTE, _CREATE | _REPLACE, body)


def _set_up(connection: socket.socket, index: int, attributes: bytes = b"") -> None:
    head = struct.pack("=BxHiII", 0, 0, index, _UP, _UP)
    _ask(connection, _NEW_LINK, 0, head + attributes)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _ask(connection: socket.socket, kind: int, flags: int, body: bytes) -> None:
    """Send a request, and raise OSError if the kernel answers with an error."""
    flags |= _REQUEST | _ACKNOWLEDGE
    connection.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
    (code,) = struct.unpack_from("=i", connection.recv(65536), _HEADER.size)
    if code:
        raise OSError(-code, os.strerror(-code))
