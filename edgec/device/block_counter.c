/* block_counter.c: counts the instructions of a model inside unicorn. Called by the emulator at the
 * start of every basic block: too often for a Python function, so Python hands it this one.
 *
 * Counting starts when a block at one of the entries begins and stops at the return address. Inside
 * edgec_mark nothing is counted: what came before belongs to the node whose id is in r0. */
#include <stddef.h>
#include <stdint.h>

typedef int (*register_reader)(void *emulator, int reg, void *value);

/* Mirrored by _Counter in unicorn_device.py. */
typedef struct {
    uint64_t entries[2];
    uint64_t mark;
    uint64_t code_start;
    uint64_t code_end;
    const uint8_t *code;
    uint32_t *cache;
    register_reader read_register;
    uint64_t *per_node;
    uint64_t total;
    uint64_t segment;
    uint64_t return_to;
    uint64_t resume_at;
    int32_t nodes;
    int32_t register_r0;
    int32_t register_lr;
    int32_t counting;
    int32_t in_mark;
    int32_t overflow;
} counter;

void edgec_count_block(void *emulator, uint64_t address, uint32_t size, void *user);

static uint64_t read_register(const counter *c, void *emulator, int32_t reg) {
    uint32_t value = 0;
    (void)c->read_register(emulator, reg, &value);
    return value;
}

/* A halfword that starts with 11101, 11110 or 11111 is the first half of a 32-bit instruction. */
static uint32_t walk(const uint8_t *code, uint32_t size) {
    uint32_t n = 0;
    for (uint32_t at = 0; at + 1u < size; n++)
        at += (code[at + 1u] >> 3) >= 0x1du ? 4u : 2u;
    return n;
}

/* Instructions of a block. One address can begin blocks of different lengths, so the cached word
 * holds the length (in halfwords) beside the count. */
static uint32_t block_length(const counter *c, uint64_t address, uint32_t size) {
    uint64_t offset = address - c->code_start;
    uint32_t *slot = &c->cache[offset / 2u];
    if ((*slot >> 16) != size / 2u)
        *slot = (size / 2u) << 16 | walk(c->code + offset, size);
    return *slot & 0xffffu;
}

/* The call costs two instructions (the id into r0, the branch), which are the marker's, not the
 * node's. */
static void end_node(counter *c, void *emulator) {
    int32_t id = (int32_t)(uint32_t)read_register(c, emulator, c->register_r0);
    uint64_t own = c->segment >= 2u ? c->segment - 2u : 0u;
    if (id >= 0 && id < c->nodes)
        c->per_node[id] += own;
    else
        c->overflow = 1;
    c->total -= c->segment - own;
    c->segment = 0;
    c->in_mark = 1;
    c->resume_at = read_register(c, emulator, c->register_lr) & ~(uint64_t)1;
}

static void start(counter *c, void *emulator) {
    c->counting = 1;
    c->total = 0;
    c->segment = 0;
    for (int32_t i = 0; i < c->nodes; i++)
        c->per_node[i] = 0;
    c->return_to = read_register(c, emulator, c->register_lr) & ~(uint64_t)1;
}

void edgec_count_block(void *emulator, uint64_t address, uint32_t size, void *user) {
    counter *c = user;
    uint32_t n;
    if (!c->counting) {
        if (address != c->entries[0] && address != c->entries[1])
            return;
        start(c, emulator);
    } else if (c->in_mark) {
        if (address != c->resume_at)
            return;
        c->in_mark = 0;
    } else if (address == c->return_to) {
        c->counting = 0;
        return;
    } else if (address == c->mark) {
        end_node(c, emulator);
        return;
    }
    if (address < c->code_start || address + size > c->code_end || size > 0x1fffeu) {
        c->overflow = 1;
        return;
    }
    n = block_length(c, address, size);
    c->total += n;
    c->segment += n;
}
