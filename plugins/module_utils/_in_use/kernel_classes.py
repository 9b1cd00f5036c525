# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel uses devices of a class or bus for, by the class: kind of use ``consumers``."""

from __future__ import annotations

import re
from typing import Mapping

from .use_kind import ClassCheck, Entry, counted


def _use_of_trace(entry: Entry) -> str | None:
    # drivers/hwtracing/coresight/coresight-sysfs.c.
    for attribute in ("enable_source", "enable_sink"):
        if attribute in entry.listing.others and entry.read(attribute) not in ("", "0"):
            return "%s is tracing (%s)" % (entry.name, attribute)
    return None


def _use_of_dax(entry: Entry) -> str | None:
    # dev_dax_kmem_probe in drivers/dax/kmem.c.
    if entry.sysfs.link_name(entry.path + "/driver") != "kmem":
        return None
    return "%s is part of the system's memory" % entry.name


def _use_of_gpio(entry: Entry) -> str | None:
    # A chip of this class has no value; gpiod_export in drivers/gpio/gpiolib-sysfs.c.
    if "value" not in entry.listing.others:
        return None
    return "%s is exported to user space" % entry.name


def _use_of_iio(entry: Entry) -> str | None:
    # buffer is an older name of buffer0: drivers/iio/industrialio-buffer.c.
    for buffer in entry.listing.directories:
        if re.fullmatch(r"buffer\d*", buffer) and entry.read(buffer + "/enable") == "1":
            return "%s is capturing (%s)" % (entry.name, buffer)
    return None


def _use_of_endpoint(entry: Entry) -> str | None:
    # pci_epc_start_store in drivers/pci/endpoint/pci-ep-cfs.c.
    if entry.sysfs.read("kernel/config/pci_ep/controllers/%s/start" % entry.name) != "1":
        return None
    return "%s is started as a PCI endpoint" % entry.name


def _use_of_pwm(entry: Entry) -> str | None:
    # pwm_export_child in drivers/pwm/core.c.
    exported = [name for name in entry.listing.directories if re.fullmatch(r"pwm\d+", name)]
    if not exported:
        return None
    return "%s has exported %s" % (entry.name, ", ".join(exported))


def _use_of_regulator(entry: Entry) -> str | None:
    # num_users_show in drivers/regulator/core.c.
    users = entry.read("num_users")
    if users in ("", "0"):
        return None
    count = counted(users, "user")
    return "%s (%s) supplies power, switched on by %s" % (entry.name, entry.read("name"), count)


def _use_of_remote_processor(entry: Entry) -> str | None:
    # rproc_state_string in drivers/remoteproc/remoteproc_sysfs.c.
    state = entry.read("state")
    if state in ("", "offline", "invalid"):
        return None
    label = entry.read("name") or entry.name
    return "remote processor %s (%s) is %s" % (entry.name, label, state)


def _use_of_tee(entry: Entry) -> str | None:
    # Clients of the kernel; tee_device_unregister in drivers/tee/tee_core.c waits for all.
    clients = [
        name
        for name in entry.sysfs.names("bus/tee/devices")
        if entry.sysfs.link("bus/tee/devices/%s/driver" % name)
    ]
    if not clients:
        return None
    return "%s serves %s" % (entry.name, ", ".join(clients))


def _use_of_tpm(entry: Entry) -> str | None:
    # boot_aggregate alone is there without a policy: ima_add_boot_aggregate in
    # security/integrity/ima/ima_init.c.
    measured = entry.sysfs.read("kernel/security/ima/runtime_measurements_count") or "0"
    if measured in ("0", "1"):
        return None
    return "IMA has %s measurements in %s" % (measured, entry.name)


def _use_of_udc(entry: Entry) -> str | None:
    # function_show in drivers/usb/gadget/udc/core.c takes udc_lock.
    if "function" not in entry.listing.others:
        return None
    function = entry.read_locked("function")
    if not function:
        return None
    return "USB gadget %s is bound to %s" % (function, entry.name)


CLASSES: Mapping[str, ClassCheck] = {
    "coresight": ClassCheck(_use_of_trace),
    "dax": ClassCheck(_use_of_dax),
    "gpio": ClassCheck(_use_of_gpio),
    "iio": ClassCheck(_use_of_iio),
    "pci_epc": ClassCheck(_use_of_endpoint),
    "pwm": ClassCheck(_use_of_pwm),
    "regulator": ClassCheck(_use_of_regulator),
    "remoteproc": ClassCheck(_use_of_remote_processor),
    "tee": ClassCheck(_use_of_tee),
    "tpm": ClassCheck(_use_of_tpm),
    "udc": ClassCheck(_use_of_udc),
}
