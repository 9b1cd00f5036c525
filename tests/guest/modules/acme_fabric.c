// SPDX-License-Identifier: GPL-2.0-only
/* A native driver for devices on the CDX bus; see acme_cdx.c. */
#include <linux/cdx/cdx_bus.h>
#include <linux/mod_devicetable.h>
#include <linux/module.h>
#include <linux/version.h>

static int acme_fabric_probe(struct cdx_device *device)
{
	return 0;
}

static int acme_fabric_remove(struct cdx_device *device)
{
	return 0;
}

static const struct cdx_device_id acme_fabric_table[] = {
	{ CDX_DEVICE(0xacce, 1) },
	{ }
};
MODULE_DEVICE_TABLE(cdx, acme_fabric_table);

static struct cdx_driver acme_fabric_driver = {
	.probe = acme_fabric_probe,
	.remove = acme_fabric_remove,
	.match_id_table = acme_fabric_table,
	.driver = {
		.name = "acme-fabric",
	},
};
module_driver(acme_fabric_driver, cdx_driver_register, cdx_driver_unregister);

MODULE_DESCRIPTION("Native driver of devices on a CDX bus without hardware");
MODULE_AUTHOR("armfleet.vfio contributors");
MODULE_LICENSE("GPL");
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
MODULE_IMPORT_NS(CDX_BUS);
#else
MODULE_IMPORT_NS("CDX_BUS");
#endif
