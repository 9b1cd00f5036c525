// SPDX-License-Identifier: GPL-2.0-only
/* A native driver for objects on the fsl-mc bus; see acme_mc.c. */
#include <linux/fsl/mc.h>
#include <linux/mod_devicetable.h>
#include <linux/module.h>

static int acme_dpni_probe(struct fsl_mc_device *device)
{
	return is_fsl_mc_bus_dpni(device) ? 0 : -ENODEV;
}

static void acme_dpni_remove(struct fsl_mc_device *device)
{
}

static const struct fsl_mc_device_id acme_dpni_table[] = {
	{ .vendor = 0xacce, .obj_type = "dpni" },
	{ }
};
MODULE_DEVICE_TABLE(fslmc, acme_dpni_table);

static struct fsl_mc_driver acme_dpni_driver = {
	.probe = acme_dpni_probe,
	.remove = acme_dpni_remove,
	.match_id_table = acme_dpni_table,
	.driver = {
		.name = "acme-dpni",
	},
};
module_fsl_mc_driver(acme_dpni_driver);

MODULE_DESCRIPTION("Native driver of objects on an fsl-mc bus without hardware");
MODULE_AUTHOR("armfleet.vfio contributors");
MODULE_LICENSE("GPL");
