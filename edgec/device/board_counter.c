/* SPDX-License-Identifier: Apache-2.0 */
/* board_counter.c: counts the instructions of a model on an emulated board, as a plugin of QEMU.
 *
 * It does what block_counter.c does inside unicorn, but sees no registers: a call returns behind
 * the block that ran before its entry, and the node of a mark is told by the word of `ticks` that
 * edgec_mark writes. The counts lie in a file that both sides map: total, overflow, instructions
 * per node, then the flows. As in user_counter.c the few functions used of qemu-plugin.h are
 * declared here, and EDGEC_PLUGIN_VERSION is the version to announce. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "block_counter.c"

#define EXPORT __attribute__((visibility("default")))
#define WRITES 2

typedef uint64_t plugin_id;
typedef struct qemu_plugin_tb block;
typedef struct qemu_plugin_insn instruction;
typedef void (*translated)(plugin_id id, block *tb);
typedef void (*executed)(unsigned int cpu, void *user);
typedef void (*accessed)(unsigned int cpu, uint32_t info, uint64_t address, void *user);

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, translated callback);
extern void qemu_plugin_register_vcpu_tb_exec_cb(block *tb, executed callback, int registers,
                                                 void *user);
extern void qemu_plugin_register_vcpu_mem_cb(instruction *insn, accessed callback, int registers,
                                             int access, void *user);
extern size_t qemu_plugin_tb_n_insns(const block *tb);
extern uint64_t qemu_plugin_tb_vaddr(const block *tb);
extern instruction *qemu_plugin_tb_get_insn(const block *tb, size_t index);
extern size_t qemu_plugin_insn_size(const instruction *insn);

EXPORT extern int qemu_plugin_version;
EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv);

int qemu_plugin_version = EDGEC_PLUGIN_VERSION;

/* ---- the arguments name=value ---- */

static uint64_t step, flush, mark, mark_end, ticks, code, words, nodes;
static const char *path;

static const struct {
    const char *name;
    uint64_t *value;
} numbers[] = {{"step=", &step},   {"flush=", &flush}, {"mark=", &mark},   {"mark_end=", &mark_end},
               {"ticks=", &ticks}, {"code=", &code},   {"words=", &words}, {"nodes=", &nodes}};

static void take(const char *argument) {
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (strncmp(argument, numbers[i].name, strlen(numbers[i].name)) == 0)
            *numbers[i].value = strtoull(argument + strlen(numbers[i].name), NULL, 0);
    if (strncmp(argument, "counts=", 7) == 0)
        path = argument + 7;
}

/* ---- counting ---- */

static counter state;
static uint64_t *shared; /* total, overflow, per node, lines per node and of the rest */
static uint64_t previous_end;

static int register_of_call(void *emulator, int reg, void *value) {
    uint32_t word = (uint32_t)previous_end;
    (void)emulator;
    if (reg != state.register_lr)
        word = UINT32_MAX; /* the node, until its ticks are written */
    memcpy(value, &word, sizeof word);
    return 0;
}

static void on_block(unsigned int cpu, void *user) {
    uint64_t packed = (uint64_t)(uintptr_t)user, address = packed & 0xffffffffu;
    uint32_t size = (uint32_t)(packed >> 32) & 0xffffu;
    int before = state.counting;
    (void)cpu;
    if (counts(&state, NULL, address)) {
        if (address < state.code_start || address + size > state.code_end)
            state.overflow = 1;
        else
            count(&state, address, size, (uint32_t)(packed >> 48));
    }
    if (before != 0 || state.counting != 0) {
        shared[0] = state.total;
        shared[1] = (uint64_t)(uint32_t)(state.overflow | state.counting);
    }
    previous_end = address + size;
}

static void on_write(unsigned int cpu, uint32_t info, uint64_t address, void *user) {
    (void)cpu;
    (void)info;
    (void)user;
    if (state.in_mark && address >= ticks && address < ticks + 4u * nodes)
        state.marked = (int32_t)((address - ticks) / 4u);
}

static void on_translation(plugin_id id, block *tb) {
    uint64_t count_of = qemu_plugin_tb_n_insns(tb), address = qemu_plugin_tb_vaddr(tb), size = 0;
    (void)id;
    for (size_t i = 0; i < count_of; i++) {
        instruction *each = qemu_plugin_tb_get_insn(tb, i);
        size += qemu_plugin_insn_size(each);
        if (address >= mark && address < mark_end)
            qemu_plugin_register_vcpu_mem_cb(each, on_write, 0, WRITES, NULL);
    }
    qemu_plugin_register_vcpu_tb_exec_cb(
        tb, on_block, 0, (void *)(uintptr_t)(address | size << 32 | count_of << 48));
}

int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
    size_t header, bytes;
    uint32_t *flows;
    int file;
    (void)info;
    for (int i = 0; i < argc; i++)
        take(argv[i]);
    header = 2u + nodes + nodes + 1u;
    bytes = 8u * header + 4u * 3u * words * (nodes + 2u);
    file = path == NULL ? -1 : open(path, O_RDWR);
    if (file < 0)
        return -1;
    shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    (void)close(file);
    if (shared == MAP_FAILED)
        return -1;
    flows = (uint32_t *)(void *)(shared + header);
    state = (counter){.entries = {step, flush},
                      .mark = mark,
                      .code_start = code,
                      .code_end = code + 2u * words,
                      .read_register = register_of_call,
                      .per_node = shared + 2,
                      .lines = shared + 2 + nodes,
                      .nodes = (int32_t)nodes,
                      .register_r0 = 0,
                      .register_lr = 14,
                      .flow = flows,
                      .flows = flows + 3u * words,
                      .flow_size = words};
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}
