// SPDX-License-Identifier: GPL-2.0-only
/*
 * An IOMMU that translates nothing and cannot tell its devices apart, so that all of them are in
 * one group, which the SMMUv3 of the guest does not do with platform devices. The objects of each
 * container on the fsl-mc bus are in a group with it, as they are behind the SMMU of NXP's chips.
 */
#include <linux/fsl/mc.h>
#include <linux/iommu.h>
#include <linux/mod_devicetable.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 0, 0)
#define ATTACH_ARGUMENTS struct iommu_domain *domain, struct device *dev
#else
#define ATTACH_ARGUMENTS \
	struct iommu_domain *domain, struct device *dev, struct iommu_domain *old
#endif

static struct iommu_device acme_iommu;

static int acme_iommu_attach(ATTACH_ARGUMENTS)
{
	return 0;
}

static const struct iommu_domain_ops acme_iommu_domain_ops = {
	.attach_dev = acme_iommu_attach,
};

static struct iommu_domain acme_iommu_identity = {
	.type = IOMMU_DOMAIN_IDENTITY,
	.ops = &acme_iommu_domain_ops,
};

static struct iommu_domain acme_iommu_blocked = {
	.type = IOMMU_DOMAIN_BLOCKED,
	.ops = &acme_iommu_domain_ops,
};

static bool acme_iommu_capable(struct device *dev, enum iommu_cap cap)
{
	return cap == IOMMU_CAP_CACHE_COHERENCY;
}

static struct iommu_device *acme_iommu_probe_device(struct device *dev)
{
	return &acme_iommu;
}

static struct iommu_group *acme_iommu_device_group(struct device *dev)
{
	return dev_is_fsl_mc(dev) ? fsl_mc_device_group(dev) : generic_single_device_group(dev);
}

static int acme_iommu_of_xlate(struct device *dev, const struct of_phandle_args *args)
{
	return iommu_fwspec_add_ids(dev, args->args, 1);
}

static int acme_iommu_def_domain_type(struct device *dev)
{
	return IOMMU_DOMAIN_IDENTITY;
}

static const struct iommu_ops acme_iommu_ops = {
	.owner = THIS_MODULE,
	.identity_domain = &acme_iommu_identity,
	.blocked_domain = &acme_iommu_blocked,
	.capable = acme_iommu_capable,
	.probe_device = acme_iommu_probe_device,
	.device_group = acme_iommu_device_group,
	.of_xlate = acme_iommu_of_xlate,
	.def_domain_type = acme_iommu_def_domain_type,
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 0, 0)
	.pgsize_bitmap = PAGE_SIZE,
#endif
};

static int acme_iommu_probe(struct platform_device *pdev)
{
	int ret;

	ret = iommu_device_sysfs_add(&acme_iommu, &pdev->dev, NULL, "acme-iommu");
	if (ret)
		return ret;
	ret = iommu_device_register(&acme_iommu, &acme_iommu_ops, &pdev->dev);
	if (ret)
		iommu_device_sysfs_remove(&acme_iommu);
	return ret;
}

static const struct of_device_id acme_iommu_of_match[] = {
	{ .compatible = "acme,iommu" },
	{ }
};
MODULE_DEVICE_TABLE(of, acme_iommu_of_match);

static struct platform_driver acme_iommu_driver = {
	.probe = acme_iommu_probe,
	.driver = {
		.name = "acme-iommu",
		.of_match_table = acme_iommu_of_match,
		/* No IOMMU lets its devices go. */
		.suppress_bind_attrs = true,
	},
};
module_platform_driver(acme_iommu_driver);

MODULE_DESCRIPTION("IOMMU whose devices are all in one group");
MODULE_AUTHOR("armfleet.vfio contributors");
MODULE_LICENSE("GPL");
