// SPDX-License-Identifier: GPL-2.0-only
/*
 * A native driver for devices that have no hardware behind them: udev loads it by their
 * compatible, it binds, and it lets go when asked.
 */
#include <linux/mod_devicetable.h>
#include <linux/module.h>
#include <linux/platform_device.h>

static int acme_probe(struct platform_device *pdev)
{
	return 0;
}

static void acme_remove(struct platform_device *pdev)
{
}

static const struct of_device_id acme_of_match[] = {
	{ .compatible = "acme,ring" },
	{ .compatible = "acme,dma" },
	{ }
};
MODULE_DEVICE_TABLE(of, acme_of_match);

static struct platform_driver acme_driver = {
	.probe = acme_probe,
	.remove = acme_remove,
	.driver = {
		.name = "acme-ring",
		.of_match_table = acme_of_match,
	},
};
module_platform_driver(acme_driver);

MODULE_DESCRIPTION("Native driver of the guest's devices without hardware");
MODULE_AUTHOR("armfleet.vfio contributors");
MODULE_LICENSE("GPL");
