// SPDX-License-Identifier: GPL-2.0-only
/* A watchdog that runs when it is opened and resets nothing. */
#include <linux/mod_devicetable.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/watchdog.h>

static int acme_watchdog_nothing(struct watchdog_device *watchdog)
{
	return 0;
}

static const struct watchdog_info acme_watchdog_info = {
	.options = WDIOF_MAGICCLOSE | WDIOF_KEEPALIVEPING,
	.identity = "acme watchdog",
};

static const struct watchdog_ops acme_watchdog_ops = {
	.owner = THIS_MODULE,
	.start = acme_watchdog_nothing,
	.stop = acme_watchdog_nothing,
	.ping = acme_watchdog_nothing,
};

static int acme_watchdog_probe(struct platform_device *pdev)
{
	struct watchdog_device *watchdog;

	watchdog = devm_kzalloc(&pdev->dev, sizeof(*watchdog), GFP_KERNEL);
	if (!watchdog)
		return -ENOMEM;
	watchdog->parent = &pdev->dev;
	watchdog->info = &acme_watchdog_info;
	watchdog->ops = &acme_watchdog_ops;
	watchdog->timeout = 60;
	return devm_watchdog_register_device(&pdev->dev, watchdog);
}

static const struct of_device_id acme_watchdog_of_match[] = {
	{ .compatible = "acme,watchdog" },
	{ }
};
MODULE_DEVICE_TABLE(of, acme_watchdog_of_match);

static struct platform_driver acme_watchdog_driver = {
	.probe = acme_watchdog_probe,
	.driver = {
		.name = "acme-watchdog",
		.of_match_table = acme_watchdog_of_match,
	},
};
module_platform_driver(acme_watchdog_driver);

MODULE_DESCRIPTION("Watchdog without hardware");
MODULE_AUTHOR("armfleet.vfio contributors");
MODULE_LICENSE("GPL");
