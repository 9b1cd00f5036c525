// SPDX-License-Identifier: GPL-2.0-only
/*
 * A VFIO driver for one kind of PCI function alone, QEMU's edu. It does what vfio-pci does, and is
 * found by its alias, as the drivers of vendors are.
 */
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/version.h>
#include <linux/vfio_pci_core.h>

static int acme_vfio_pci_open(struct vfio_device *core)
{
	struct vfio_pci_core_device *device =
		container_of(core, struct vfio_pci_core_device, vdev);
	int error = vfio_pci_core_enable(device);

	if (!error)
		vfio_pci_core_finish_enable(device);
	return error;
}

static const struct vfio_device_ops acme_vfio_pci_ops = {
	.name = KBUILD_MODNAME,
	.init = vfio_pci_core_init_dev,
	.release = vfio_pci_core_release_dev,
	.open_device = acme_vfio_pci_open,
	.close_device = vfio_pci_core_close_device,
	.ioctl = vfio_pci_core_ioctl,
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0)
	.get_region_info_caps = vfio_pci_ioctl_get_region_info,
	.match_token_uuid = vfio_pci_core_match_token_uuid,
#endif
	.device_feature = vfio_pci_core_ioctl_feature,
	.read = vfio_pci_core_read,
	.write = vfio_pci_core_write,
	.mmap = vfio_pci_core_mmap,
	.request = vfio_pci_core_request,
	.match = vfio_pci_core_match,
	.bind_iommufd = vfio_iommufd_physical_bind,
	.unbind_iommufd = vfio_iommufd_physical_unbind,
	.attach_ioas = vfio_iommufd_physical_attach_ioas,
	.detach_ioas = vfio_iommufd_physical_detach_ioas,
};

static int acme_vfio_pci_probe(struct pci_dev *function, const struct pci_device_id *id)
{
	struct vfio_pci_core_device *device;
	int error;

	device = vfio_alloc_device(vfio_pci_core_device, vdev, &function->dev, &acme_vfio_pci_ops);
	if (IS_ERR(device))
		return PTR_ERR(device);
	dev_set_drvdata(&function->dev, device);
	error = vfio_pci_core_register_device(device);
	if (error)
		vfio_put_device(&device->vdev);
	return error;
}

static void acme_vfio_pci_remove(struct pci_dev *function)
{
	struct vfio_pci_core_device *device = dev_get_drvdata(&function->dev);

	vfio_pci_core_unregister_device(device);
	vfio_put_device(&device->vdev);
}

static const struct pci_device_id acme_vfio_pci_table[] = {
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(0x1234, 0x11e8) },
	{}
};
MODULE_DEVICE_TABLE(pci, acme_vfio_pci_table);

static struct pci_driver acme_vfio_pci_driver = {
	.name = KBUILD_MODNAME,
	.id_table = acme_vfio_pci_table,
	.probe = acme_vfio_pci_probe,
	.remove = acme_vfio_pci_remove,
	.err_handler = &vfio_pci_core_err_handlers,
	.driver_managed_dma = true,
};
module_pci_driver(acme_vfio_pci_driver);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("VFIO driver for QEMU's edu");
