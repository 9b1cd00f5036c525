/*
 * Copyright: armfleet.vfio contributors
 * GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Devices that firmware describes by the compatible strings of their drivers, as in
 * Documentation/firmware-guide/acpi/enumeration.rst of Linux. Their memory is of nothing else.
 */
DefinitionBlock ("", "SSDT", 2, "ACME", "ENGINES", 1)
{
    Scope (\_SB)
    {
        Device (ENG0)
        {
            Name (_HID, "PRP0001")
            Name (_UID, "0")
            Name (_CRS, ResourceTemplate () { Memory32Fixed (ReadWrite, 0x0C000000, 0x1000) })
            Name (_DSD, Package ()
            {
                ToUUID ("daffd814-6eba-4d8c-8a91-bc9bbf4aa301"),
                Package () { Package () { "compatible", Package () { "acme,engine-v1", "acme,engine" } } }
            })
        }
        Device (ENG1)
        {
            Name (_HID, "ACME0001")
            Name (_CID, "PRP0001")
            Name (_UID, "1")
            Name (_CRS, ResourceTemplate () { Memory32Fixed (ReadWrite, 0x0C001000, 0x1000) })
            Name (_DSD, Package ()
            {
                ToUUID ("daffd814-6eba-4d8c-8a91-bc9bbf4aa301"),
                Package () { Package () { "compatible", "acme,engine" } }
            })
        }
        Device (ENG2)
        {
            Name (_HID, "PRP0001")
            Name (_UID, "2")
            Name (_CRS, ResourceTemplate () { Memory32Fixed (ReadWrite, 0x0C002000, 0x1000) })
            Name (_DSD, Package ()
            {
                ToUUID ("daffd814-6eba-4d8c-8a91-bc9bbf4aa301"),
                Package () { Package () { "compatible", "acme,engine-v2" } }
            })
        }
    }
}
