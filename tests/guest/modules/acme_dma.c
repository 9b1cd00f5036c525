// SPDX-License-Identifier: GPL-2.0-only
/*
 * A DMA engine without hardware, and a client that has as many of its channels as the parameter
 * "taken" says. It has no table of devices for modprobe, so that it comes when somebody asks for it
 * and not before. Linux without CONFIG_DMA_ENGINE has no use for it.
 */
#include <linux/dmaengine.h>
#include <linux/mod_devicetable.h>
#include <linux/module.h>
#include <linux/platform_device.h>

#define ACME_DMA_CHANNELS 4

struct acme_dma {
	struct dma_device engine;
	struct dma_chan channels[ACME_DMA_CHANNELS];
};

static struct dma_chan *taken[ACME_DMA_CHANNELS];
static unsigned int taken_count;

static bool acme_dma_is_ours(struct dma_chan *channel, void *unused)
{
	return !strcmp(channel->device->dev->driver->name, "acme-dma");
}

static int set_taken(const char *value, const struct kernel_param *parameter)
{
	unsigned int wanted;
	dma_cap_mask_t mask;
	int error = kstrtouint(value, 0, &wanted);

	if (error || wanted > ACME_DMA_CHANNELS)
		return -EINVAL;
	dma_cap_zero(mask);
	dma_cap_set(DMA_MEMCPY, mask);
	while (taken_count < wanted) {
		taken[taken_count] = dma_request_channel(mask, acme_dma_is_ours, NULL);
		if (!taken[taken_count])
			return -EBUSY;
		taken_count++;
	}
	while (taken_count > wanted)
		dma_release_channel(taken[--taken_count]);
	return 0;
}

static const struct kernel_param_ops taken_ops = {
	.set = set_taken,
	.get = param_get_uint,
};
module_param_cb(taken, &taken_ops, &taken_count, 0644);
MODULE_PARM_DESC(taken, "How many channels somebody has");

static struct dma_async_tx_descriptor *acme_dma_prep_memcpy(struct dma_chan *channel,
							    dma_addr_t to, dma_addr_t from,
							    size_t length, unsigned long flags)
{
	return NULL;
}

static enum dma_status acme_dma_tx_status(struct dma_chan *channel, dma_cookie_t cookie,
					  struct dma_tx_state *state)
{
	return DMA_COMPLETE;
}

static void acme_dma_issue_pending(struct dma_chan *channel)
{
}

static int acme_dma_probe(struct platform_device *pdev)
{
	struct acme_dma *dma = devm_kzalloc(&pdev->dev, sizeof(*dma), GFP_KERNEL);
	struct dma_device *engine;
	int index;

	if (!dma)
		return -ENOMEM;
	engine = &dma->engine;
	engine->dev = &pdev->dev;
	dma_cap_set(DMA_MEMCPY, engine->cap_mask);
	engine->device_prep_dma_memcpy = acme_dma_prep_memcpy;
	engine->device_tx_status = acme_dma_tx_status;
	engine->device_issue_pending = acme_dma_issue_pending;
	INIT_LIST_HEAD(&engine->channels);
	for (index = 0; index < ACME_DMA_CHANNELS; index++) {
		dma->channels[index].device = engine;
		list_add_tail(&dma->channels[index].device_node, &engine->channels);
	}
	return dmaenginem_async_device_register(engine);
}

static const struct of_device_id acme_dma_of_match[] = {
	{ .compatible = "acme,shared" },
	{ }
};

static struct platform_driver acme_dma_driver = {
	.probe = acme_dma_probe,
	.driver = {
		.name = "acme-dma",
		.of_match_table = acme_dma_of_match,
	},
};
module_platform_driver(acme_dma_driver);

MODULE_DESCRIPTION("DMA engine without hardware");
MODULE_AUTHOR("armfleet.vfio contributors");
MODULE_LICENSE("GPL");
