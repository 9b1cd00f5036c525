// SPDX-License-Identifier: GPL-2.0-only
/*
 * A clock that others wait for. It has no table of devices for modprobe, so that it comes when
 * somebody asks for it and not before.
 */
#include <linux/clk-provider.h>
#include <linux/module.h>
#include <linux/of.h>
#include <linux/platform_device.h>

static int acme_clock_probe(struct platform_device *pdev)
{
	struct device *dev = &pdev->dev;
	struct clk_hw *hw = devm_clk_hw_register_fixed_rate(dev, "acme-clock", NULL, 0, 1000000);

	if (IS_ERR(hw))
		return PTR_ERR(hw);
	return devm_of_clk_add_hw_provider(dev, of_clk_hw_simple_get, hw);
}

static const struct of_device_id acme_clock_of_match[] = {
	{ .compatible = "acme,clock" },
	{ }
};

static struct platform_driver acme_clock_driver = {
	.probe = acme_clock_probe,
	.driver = {
		.name = "acme-clock",
		.of_match_table = acme_clock_of_match,
	},
};
module_platform_driver(acme_clock_driver);

MODULE_DESCRIPTION("A clock that is late");
MODULE_AUTHOR("armfleet.vfio contributors");
MODULE_LICENSE("GPL");
