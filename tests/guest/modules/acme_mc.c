// SPDX-License-Identifier: GPL-2.0-only
/*
 * Answers what the fsl-mc bus asks the firmware of NXP's DPAA2 hardware (the "management complex"):
 * which containers there are, and which objects are in them. The kernel writes its commands into
 * portals, which are memory here. All else is the kernel's own: the driver of the bus, its devices,
 * the drivers of containers, VFIO. It has no table of devices for modprobe, so that it comes when
 * somebody asks for it and not before.
 *
 * Container 1 is the root, and has an object and two containers; one of these has an object.
 */
#include <linux/delay.h>
#include <linux/fsl/mc.h>
#include <linux/io.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/of.h>
#include <linux/of_address.h>
#include <linux/of_platform.h>
#include <linux/platform_device.h>
#include <linux/spinlock.h>

#define ACME_VENDOR 0xacce
#define CONTAINERS 3
#define PORTAL_BYTES 0x40
/* The portal of a container, which is mapped alone, is a page of its own. */
#define PORTAL_DISTANCE 0x1000
/* The register that tells the state of the firmware: drivers/bus/fsl-mc/fsl-mc-bus.c. */
#define STATE 0x8
#define STATE_BOOTED BIT(0)
/* The streams of containers are above those of PCI functions. */
#define FIRST_ICID 0x4000

/* Without the version of the command: drivers/bus/fsl-mc/fsl-mc-private.h. */
enum {
	DPRC_GET_ATTR = 0x004,
	DPRC_GET_OBJ_COUNT = 0x159,
	DPRC_GET_OBJ = 0x15a,
	DPRC_GET_OBJ_REG = 0x15e,
	DPRC_OPEN = 0x805,
	DPRC_GET_CONT_ID = 0x830,
	DPMNG_GET_VERSION = 0x831,
	DPRC_GET_API_VERSION = 0xa05,
};

/* struct dprc_rsp_get_obj in the same file. */
struct object_reply {
	__le32 unused;
	__le32 id;
	__le16 vendor;
	u8 irq_count;
	u8 region_count;
	__le32 state;
	__le16 version_major;
	__le16 version_minor;
	__le16 flags;
	__le16 unused_too;
	char type[16];
	char label[16];
};

struct object {
	int container;
	const char *type;
	int id;
};

static const struct object objects[] = {
	{ 1, "dprc", 2 },
	{ 1, "dprc", 3 },
	{ 1, "dpni", 1 },
	{ 2, "dpni", 2 },
};

static struct task_struct *servers[NR_CPUS];
static DEFINE_SPINLOCK(answering);
static phys_addr_t portals_address;
static void __iomem *portals;
static struct platform_device *bus;

static int objects_of(int container)
{
	int count = 0, index;

	for (index = 0; index < ARRAY_SIZE(objects); index++)
		count += objects[index].container == container;
	return count;
}

static const struct object *object_of(int container, int number)
{
	int index;

	for (index = 0; index < ARRAY_SIZE(objects); index++)
		if (objects[index].container == container && number-- == 0)
			return &objects[index];
	return NULL;
}

static enum mc_cmd_status describe(const struct object *object, struct object_reply *reply)
{
	bool is_container;

	if (!object)
		return MC_CMD_STATUS_CONFIG_ERR;
	is_container = !strcmp(object->type, "dprc");
	memset(reply, 0, sizeof(*reply));
	reply->id = cpu_to_le32(object->id);
	reply->vendor = cpu_to_le16(is_container ? FSL_MC_VENDOR_FREESCALE : ACME_VENDOR);
	reply->irq_count = is_container;
	reply->region_count = is_container;
	reply->state = cpu_to_le32(FSL_MC_OBJ_STATE_PLUGGED);
	reply->version_major = cpu_to_le16(6);
	strscpy(reply->type, object->type, sizeof(reply->type));
	return MC_CMD_STATUS_OK;
}

/* A command that is not listed needs no more than to succeed: closing, resets, interrupts. */
static enum mc_cmd_status perform(struct fsl_mc_command *command)
{
	struct mc_cmd_header *header = (struct mc_cmd_header *)&command->header;
	__le32 *words = (__le32 *)command->params;
	/* What is open is known by the number of its container. */
	int container = le16_to_cpu(header->token);

	switch (le16_to_cpu(header->cmd_id) >> 4) {
	case DPMNG_GET_VERSION:
		words[0] = 0;
		words[1] = cpu_to_le32(10);
		words[2] = 0;
		break;
	case DPRC_GET_API_VERSION:
		/* Since 6.3 the address of a region is known without the device tree. */
		words[0] = cpu_to_le32(3 << 16 | 6);
		break;
	case DPRC_GET_CONT_ID:
		words[0] = cpu_to_le32(1);
		break;
	case DPRC_OPEN:
		header->token = cpu_to_le16(le32_to_cpu(words[0]));
		break;
	case DPRC_GET_ATTR:
		words[0] = cpu_to_le32(container);
		words[1] = cpu_to_le32(FIRST_ICID + container);
		words[2] = 0;
		words[3] = cpu_to_le32(container);
		break;
	case DPRC_GET_OBJ_COUNT:
		words[1] = cpu_to_le32(objects_of(container));
		break;
	case DPRC_GET_OBJ:
		return describe(object_of(container, le32_to_cpu(words[0])),
				(struct object_reply *)command->params);
	case DPRC_GET_OBJ_REG:
		/* The only region of a container is its portal. */
		command->params[4] = cpu_to_le64(portals_address +
						 (le32_to_cpu(words[0]) - 1) * PORTAL_DISTANCE);
		command->params[1] = 0;
		command->params[2] = cpu_to_le64(PORTAL_BYTES);
		command->params[3] = 0;
		break;
	}
	return MC_CMD_STATUS_OK;
}

static void answer(void __iomem *portal)
{
	struct fsl_mc_command command;
	struct mc_cmd_header *header = (struct mc_cmd_header *)&command.header;
	int index;

	command.header = cpu_to_le64(readq(portal));
	if (header->status != MC_CMD_STATUS_READY)
		return;
	for (index = 0; index < MC_CMD_NUM_OF_PARAMS; index++)
		command.params[index] = cpu_to_le64(readq(portal + 8 * (index + 1)));
	header->status = perform(&command);
	for (index = 0; index < MC_CMD_NUM_OF_PARAMS; index++)
		writeq(le64_to_cpu(command.params[index]), portal + 8 * (index + 1));
	writeq(le64_to_cpu(command.header), portal);
}

static int serve(void *unused)
{
	int index;

	while (!kthread_should_stop()) {
		spin_lock(&answering);
		for (index = 0; index < CONTAINERS; index++)
			answer(portals + index * PORTAL_DISTANCE);
		spin_unlock(&answering);
		usleep_range(2000, 4000);
	}
	return 0;
}

static void stop_servers(void)
{
	int cpu;

	for_each_possible_cpu(cpu) {
		if (servers[cpu])
			kthread_stop(servers[cpu]);
		servers[cpu] = NULL;
	}
}

/*
 * One for each processor: that which sends a command waits for the answer without interrupts
 * (mc_polling_wait_atomic), and nothing else runs on it meanwhile.
 */
static int start_servers(void)
{
	struct task_struct *server;
	int cpu;

	for_each_online_cpu(cpu) {
		server = kthread_run_on_cpu(serve, NULL, cpu, "acme-mc/%u");
		if (IS_ERR(server)) {
			stop_servers();
			return PTR_ERR(server);
		}
		servers[cpu] = server;
	}
	return 0;
}

/* The bus waits for the firmware to have booted. */
static int set_state(struct device_node *node)
{
	void __iomem *registers = of_iomap(node, 1);

	if (!registers)
		return -ENOMEM;
	writel(STATE_BOOTED, registers + STATE);
	iounmap(registers);
	return 0;
}

static int __init acme_mc_init(void)
{
	struct device_node *node = of_find_compatible_node(NULL, NULL, "fsl,qoriq-mc");
	struct resource portal;
	int error;

	if (!node)
		return -ENODEV;
	error = of_address_to_resource(node, 0, &portal);
	if (!error)
		error = set_state(node);
	if (error)
		goto put_node;
	portals_address = portal.start;
	portals = ioremap(portals_address, CONTAINERS * PORTAL_DISTANCE);
	if (!portals) {
		error = -ENOMEM;
		goto put_node;
	}
	memset_io(portals, 0, CONTAINERS * PORTAL_DISTANCE);
	error = start_servers();
	if (error)
		goto unmap;
	bus = of_platform_device_create(node, NULL, NULL);
	if (bus)
		goto put_node;
	error = -ENODEV;
	stop_servers();
unmap:
	iounmap(portals);
put_node:
	of_node_put(node);
	return error;
}
module_init(acme_mc_init);

static void __exit acme_mc_exit(void)
{
	of_platform_device_destroy(&bus->dev, NULL);
	stop_servers();
	iounmap(portals);
}
module_exit(acme_mc_exit);

MODULE_DESCRIPTION("Firmware that an fsl-mc bus without hardware talks to");
MODULE_AUTHOR("armfleet.vfio contributors");
MODULE_LICENSE("GPL");
