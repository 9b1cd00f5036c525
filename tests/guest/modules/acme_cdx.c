// SPDX-License-Identifier: GPL-2.0-only
/*
 * The controller of a CDX bus without hardware, with two devices of the same id. It has no table of
 * devices for modprobe, so that it comes when somebody asks for it and not before.
 */
#include <linux/cdx/cdx_bus.h>
#include <linux/module.h>
#include <linux/of.h>
#include <linux/of_platform.h>
#include <linux/platform_device.h>
#include <linux/version.h>

/* The interface for controllers, which the kernel keeps in drivers/cdx. */
#include "cdx.h"

#define ACME_VENDOR 0xacce
#define ACME_DEVICES 2
/* That of the device tree's iommu-map. */
#define FIRST_STREAM 0x6000

static struct platform_device *node_device;

static int acme_cdx_set_bus(struct cdx_controller *cdx, u8 bus_number)
{
	return 0;
}

static int acme_cdx_configure(struct cdx_controller *cdx, u8 bus_number, u8 device_number,
			      struct cdx_device_config *config)
{
	return 0;
}

static int acme_cdx_scan(struct cdx_controller *cdx)
{
	struct device *bus = cdx_bus_add(cdx, 0);
	int number, error;

	if (!bus)
		return -ENODEV;
	for (number = 0; number < ACME_DEVICES; number++) {
		struct cdx_dev_params params = {
			.cdx = cdx,
			.parent = bus,
			.vendor = ACME_VENDOR,
			.device = 1,
			.dev_num = number,
			.req_id = FIRST_STREAM + number,
		};

		error = cdx_device_add(&params);
		if (error)
			return error;
	}
	return 0;
}

static struct cdx_ops acme_cdx_ops = {
	.bus_enable = acme_cdx_set_bus,
	.bus_disable = acme_cdx_set_bus,
	.scan = acme_cdx_scan,
	.dev_configure = acme_cdx_configure,
};

static struct cdx_controller acme_cdx = {
	.ops = &acme_cdx_ops,
};

static int acme_cdx_probe(struct platform_device *pdev)
{
	acme_cdx.dev = &pdev->dev;
	/* Where the file "rescan" of the bus looks for it. */
	platform_set_drvdata(pdev, &acme_cdx);
	return cdx_register_controller(&acme_cdx);
}

static void acme_cdx_remove(struct platform_device *pdev)
{
	cdx_unregister_controller(&acme_cdx);
}

static const struct of_device_id acme_cdx_of_match[] = {
	{ .compatible = "xlnx,versal-net-cdx" },
	{ }
};

static struct platform_driver acme_cdx_driver = {
	.probe = acme_cdx_probe,
	.remove = acme_cdx_remove,
	.driver = {
		.name = "acme-cdx",
		.of_match_table = acme_cdx_of_match,
	},
};

static int __init acme_cdx_init(void)
{
	struct device_node *node = of_find_matching_node(NULL, acme_cdx_of_match);
	int error;

	if (!node)
		return -ENODEV;
	error = platform_driver_register(&acme_cdx_driver);
	if (error)
		goto put_node;
	node_device = of_platform_device_create(node, NULL, NULL);
	if (!node_device) {
		platform_driver_unregister(&acme_cdx_driver);
		error = -ENODEV;
	}
put_node:
	of_node_put(node);
	return error;
}
module_init(acme_cdx_init);

static void __exit acme_cdx_exit(void)
{
	of_platform_device_destroy(&node_device->dev, NULL);
	platform_driver_unregister(&acme_cdx_driver);
}
module_exit(acme_cdx_exit);

MODULE_DESCRIPTION("Controller of a CDX bus without hardware");
MODULE_AUTHOR("armfleet.vfio contributors");
MODULE_LICENSE("GPL");
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
MODULE_IMPORT_NS(CDX_BUS_CONTROLLER);
#else
MODULE_IMPORT_NS("CDX_BUS_CONTROLLER");
#endif
