/* SPDX-License-Identifier: Apache-2.0 */
/* block_counter.c: counts the instructions of a model inside an emulator. Called at the start of
 * every basic block: too often for a Python function, so Python hands unicorn this one, and the
 * plugin for QEMU (board_counter.c) includes it.
 *
 * Counting starts when a block at one of the entries begins and stops at the return address. Inside
 * edgec_mark nothing is counted: what came before belongs to the node whose id is in r0.
 *
 * With `flow` it also keeps how the code was run through, from which the executions of every
 * instruction follow: three arrays of one word per halfword of code, for what ran since the last
 * mark; `flows` holds them per node, then for the rest. With `touched` it also counts the lines of
 * flash that are read for the first time since the start, as code or as data. */
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
    uint32_t *flow; /* blocks that begin here, end before here, did not continue here; or NULL */
    uint32_t *flows;
    uint64_t flow_size; /* words of one array */
    uint64_t last_end;  /* of the block before, 0: none */
    uint8_t *touched;   /* of each line, or NULL */
    uint64_t *lines;    /* per node, then for the rest */
    uint64_t line_bytes;
    uint64_t new_lines; /* since the last mark */
    int32_t marked;     /* the node whose mark is being run */
} counter;

void edgec_count_block(void *emulator, uint64_t address, uint32_t size, void *user);
void edgec_touch(void *emulator, int type, uint64_t address, int size, int64_t value, void *user);

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

/* ---- how the code is run through ---- */

/* The block before ended at last_end and did not continue there. */
static void leave(counter *c) {
    if (c->last_end != 0u)
        c->flow[2u * c->flow_size + (c->last_end - c->code_start) / 2u]++;
}

/* Bytes of the flash, which begins with the code, are read. */
static void touch(counter *c, uint64_t address, uint64_t size) {
    uint64_t last = (address + size - 1u - c->code_start) / c->line_bytes;
    for (uint64_t line = (address - c->code_start) / c->line_bytes; line <= last; line++) {
        c->new_lines += c->touched[line] == 0u;
        c->touched[line] = 1;
    }
}

/* Called by the emulator for every read of data within the code. */
void edgec_touch(void *emulator, int type, uint64_t address, int size, int64_t value, void *user) {
    counter *c = user;
    (void)emulator;
    (void)type;
    (void)value;
    if (c->counting && !c->in_mark && address >= c->code_start &&
        address + (uint64_t)size <= c->code_end)
        touch(c, address, (uint64_t)size);
}

static void enter(counter *c, uint64_t address, uint32_t size) {
    uint64_t first = (address - c->code_start) / 2u;
    if (first + size / 2u >= c->flow_size) {
        c->overflow = 1;
        return;
    }
    if (address != c->last_end)
        leave(c);
    if (c->touched != NULL)
        touch(c, address, size);
    c->flow[first]++;
    c->flow[c->flow_size + first + size / 2u]++;
    c->last_end = address + size;
}

/* What ran since the last mark becomes a node's, or (slot `nodes`) the rest. */
static void keep_flow(counter *c, int32_t slot) {
    uint64_t words = 3u * c->flow_size;
    uint32_t *to = c->flows + words * (uint64_t)(uint32_t)slot;
    for (uint64_t i = 0; i < words; i++) {
        to[i] += c->flow[i];
        c->flow[i] = 0;
    }
    c->lines[slot] += c->new_lines;
    c->new_lines = 0;
}

/* The call of the marker, four bytes long, is not the node's. */
static void take_back_call(counter *c) {
    if (c->last_end != c->resume_at)
        return;
    c->flow[c->flow_size + (c->last_end - c->code_start) / 2u]--;
    c->flow[c->flow_size + (c->last_end - 4u - c->code_start) / 2u]++;
}

static void clear_flows(counter *c) {
    uint64_t words = 3u * c->flow_size;
    for (uint64_t i = 0; i < words; i++)
        c->flow[i] = 0;
    for (uint64_t i = 0; i < words * (uint64_t)(uint32_t)(c->nodes + 1); i++)
        c->flows[i] = 0;
    for (int32_t i = 0; i <= c->nodes; i++)
        c->lines[i] = 0;
    for (uint64_t i = 0; c->touched != NULL && i <= (c->code_end - c->code_start) / c->line_bytes;
         i++)
        c->touched[i] = 0;
    c->last_end = 0;
    c->new_lines = 0;
}

static void begin_mark(counter *c, void *emulator) {
    c->marked = (int32_t)(uint32_t)read_register(c, emulator, c->register_r0);
    c->resume_at = read_register(c, emulator, c->register_lr) & ~(uint64_t)1;
    c->in_mark = 1;
}

/* The call costs two instructions (the id into r0, the branch), which are the marker's, not the
 * node's. */
static void end_mark(counter *c) {
    int32_t id = c->marked;
    uint64_t own = c->segment >= 2u ? c->segment - 2u : 0u;
    if (id >= 0 && id < c->nodes)
        c->per_node[id] += own;
    else
        c->overflow = 1;
    c->total -= c->segment - own;
    c->segment = 0;
    c->in_mark = 0;
    if (c->flow != NULL && id >= 0 && id < c->nodes) {
        take_back_call(c);
        keep_flow(c, id);
    }
}

static void start(counter *c, void *emulator) {
    c->counting = 1;
    c->total = 0;
    c->segment = 0;
    for (int32_t i = 0; i < c->nodes; i++)
        c->per_node[i] = 0;
    c->return_to = read_register(c, emulator, c->register_lr) & ~(uint64_t)1;
    if (c->flow != NULL)
        clear_flows(c);
}

static void stop(counter *c) {
    c->counting = 0;
    if (c->flow == NULL)
        return;
    leave(c);
    keep_flow(c, c->nodes);
}

/* Whether a block that begins now is the model's. */
static int counts(counter *c, void *emulator, uint64_t address) {
    if (!c->counting) {
        if (address != c->entries[0] && address != c->entries[1])
            return 0;
        start(c, emulator);
    } else if (c->in_mark) {
        if (address != c->resume_at)
            return 0;
        end_mark(c);
        c->last_end = address;
    } else if (address == c->return_to) {
        stop(c);
        return 0;
    } else if (address == c->mark) {
        begin_mark(c, emulator);
        return 0;
    }
    return 1;
}

static void count(counter *c, uint64_t address, uint32_t size, uint32_t instructions) {
    if (c->flow != NULL)
        enter(c, address, size);
    c->total += instructions;
    c->segment += instructions;
}

void edgec_count_block(void *emulator, uint64_t address, uint32_t size, void *user) {
    counter *c = user;
    if (!counts(c, emulator, address))
        return;
    if (address < c->code_start || address + size > c->code_end || size > 0x1fffeu)
        c->overflow = 1;
    else
        count(c, address, size, block_length(c, address, size));
}
