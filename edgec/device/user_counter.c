/* SPDX-License-Identifier: Apache-2.0 */
/* user_counter.c: counts the instructions of a program under qemu-aarch64, as a plugin of QEMU.
 *
 * The count lies in a file that both sides map: the plugin adds to it at the start of every block,
 * and the image's port (port_posix.c) reads it as its tick counter. QEMU's packages for users come
 * without qemu-plugin.h, so the few functions used are declared here, as the interface defines them
 * (docs/devel/tcg-plugins in QEMU's sources). EDGEC_PLUGIN_VERSION is the version to announce. */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define ARGUMENT "counter="

typedef uint64_t plugin_id;
typedef struct qemu_plugin_tb block;
typedef void (*translated)(plugin_id id, block *tb);
typedef void (*executed)(unsigned int cpu, void *user);

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, translated callback);
extern void qemu_plugin_register_vcpu_tb_exec_cb(block *tb, executed callback, int registers,
                                                 void *user);
extern size_t qemu_plugin_tb_n_insns(const block *tb);

EXPORT extern int qemu_plugin_version;
EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv);

int qemu_plugin_version = EDGEC_PLUGIN_VERSION;
static volatile uint64_t *counter;

static void on_block(unsigned int cpu, void *instructions) {
    (void)cpu;
    *counter += (uintptr_t)instructions;
}

static void on_translation(plugin_id id, block *tb) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, 0, (void *)qemu_plugin_tb_n_insns(tb));
}

int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
    const size_t prefix = sizeof ARGUMENT - 1u;
    int file;
    void *mapped;
    (void)info;
    if (argc != 1 || strncmp(argv[0], ARGUMENT, prefix) != 0)
        return -1;
    file = open(argv[0] + prefix, O_RDWR);
    if (file < 0)
        return -1;
    mapped = mmap(NULL, sizeof *counter, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    (void)close(file);
    if (mapped == MAP_FAILED)
        return -1;
    counter = mapped;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}
