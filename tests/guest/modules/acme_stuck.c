// SPDX-License-Identifier: GPL-2.0-only
/*
 * A driver whose remove does not return while its parameter "stuck" is on, as one that waits for
 * hardware which never answers.
 */
#include <linux/mod_devicetable.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/wait.h>

static DECLARE_WAIT_QUEUE_HEAD(waiting);
static bool stuck = true;

static int set_stuck(const char *value, const struct kernel_param *parameter)
{
	int error = param_set_bool(value, parameter);

	wake_up_all(&waiting);
	return error;
}

static const struct kernel_param_ops stuck_ops = {
	.flags = KERNEL_PARAM_OPS_FL_NOARG,
	.set = set_stuck,
	.get = param_get_bool,
};
module_param_cb(stuck, &stuck_ops, &stuck, 0644);
MODULE_PARM_DESC(stuck, "Whether a device is kept for ever when it is to be removed");

static int acme_stuck_probe(struct platform_device *pdev)
{
	return 0;
}

static void acme_stuck_remove(struct platform_device *pdev)
{
	wait_event(waiting, !READ_ONCE(stuck));
}

static const struct of_device_id acme_stuck_of_match[] = {
	{ .compatible = "acme,stuck" },
	{ }
};
MODULE_DEVICE_TABLE(of, acme_stuck_of_match);

static struct platform_driver acme_stuck_driver = {
	.probe = acme_stuck_probe,
	.remove = acme_stuck_remove,
	.driver = {
		.name = "acme-stuck",
		.of_match_table = acme_stuck_of_match,
	},
};
module_platform_driver(acme_stuck_driver);

MODULE_DESCRIPTION("Driver that does not let go of its device");
MODULE_AUTHOR("armfleet.vfio contributors");
MODULE_LICENSE("GPL");
