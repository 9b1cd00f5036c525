// SPDX-License-Identifier: GPL-2.0-only
/*
 * A bus whose devices appear when its driver comes, and go with it. It has no table of devices
 * for modprobe, so that it comes when somebody asks for it and not before.
 */
#include <linux/module.h>
#include <linux/of.h>
#include <linux/of_platform.h>
#include <linux/platform_device.h>

static int acme_bus_probe(struct platform_device *pdev)
{
	return devm_of_platform_populate(&pdev->dev);
}

static const struct of_device_id acme_bus_of_match[] = {
	{ .compatible = "acme,bus" },
	{ }
};

static struct platform_driver acme_bus_driver = {
	.probe = acme_bus_probe,
	.driver = {
		.name = "acme-bus",
		.of_match_table = acme_bus_of_match,
	},
};
module_platform_driver(acme_bus_driver);

MODULE_DESCRIPTION("A bus that is late");
MODULE_AUTHOR("armfleet.vfio contributors");
MODULE_LICENSE("GPL");
