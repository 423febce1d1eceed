/* SPDX-License-Identifier: Apache-2.0 */
/* harness.c: drives one model over a stream of commands. edgec_image.h is generated from the
 * model's manifest: it names the state type, the buffers and the calls.
 *
 * Commands: S + inputs = step, F = flush, R = reset, I + u32 = select instance, M = memory report,
 * T = ticks of the last call, N = ticks of its nodes, D + i32 = dump the memory at this node from
 * now on (-1: none, -2: all), Q = quit. Every reply starts with an int32 return code; the outputs
 * follow when it is 1. A dump precedes the return code of its step: DUMP_MAGIC, node id, arena,
 * state, outputs. */
#include "edgec.h"
#include "port.h"
#include "edgec_image.h"

#define DUMP_MAGIC 0x504d5544
#define DUMP_ALL (-1)
#define E_COMMAND (-100)

typedef struct {
    void *data;
    size_t bytes;
} buffer;

#define ARENA_BYTES (EDGEC_IMAGE_ARENA_BYTES > 0 ? EDGEC_IMAGE_ARENA_BYTES : 16)

static EDGEC_ALIGN(16) EDGEC_IMAGE_ARENA_PLACE uint8_t edgec_arena[ARENA_BYTES];
static EDGEC_ALIGN(16)
    EDGEC_IMAGE_STATE_PLACE EDGEC_IMAGE_STATE edgec_states[EDGEC_IMAGE_INSTANCES];
EDGEC_IMAGE_BUFFERS
static const buffer inputs[] = EDGEC_IMAGE_INPUTS;
static const buffer outputs[] = EDGEC_IMAGE_OUTPUTS;

static uint32_t selected;
#ifdef EDGEC_IMAGE_CYCLES
static uint32_t edgec_cycles[EDGEC_IMAGE_CYCLES];
#endif
static uint32_t last_ticks;

static void write_outputs(void) {
    for (size_t i = 0; i < sizeof outputs / sizeof outputs[0]; i++)
        edgec_port_write(outputs[i].data, outputs[i].bytes);
}

#ifdef EDGEC_PROFILE
extern uint32_t edgec_node_ticks[EDGEC_IMAGE_NODES]; /* a counter looks for it by its name */
uint32_t edgec_node_ticks[EDGEC_IMAGE_NODES];
static uint32_t mark_ticks;
static int32_t dump_request; /* node id + 1, DUMP_ALL or 0: none (zero needs no .data) */

/* Kept out of line so that an emulator can count up to its entry and from its return. */
EDGEC_NOINLINE void edgec_mark(int id) {
    if (id >= 0 && id < (int)EDGEC_IMAGE_NODES)
        edgec_node_ticks[id] += edgec_port_ticks_since(mark_ticks);
    if (dump_request == DUMP_ALL || dump_request == id + 1) {
        const int32_t head[2] = {DUMP_MAGIC, id};
        edgec_port_write(head, sizeof head);
        edgec_port_write(edgec_arena, EDGEC_IMAGE_ARENA_BYTES);
        edgec_port_write(&edgec_states[selected], sizeof edgec_states[0]);
        write_outputs();
    }
    mark_ticks = edgec_port_ticks();
}
#endif

/* The only caller of the model: an emulator counts from this call to its return. */
static EDGEC_NOINLINE int32_t call_model(int flush) {
    EDGEC_IMAGE_STATE *state = &edgec_states[selected];
    uint32_t before;
    int32_t rc;
#ifdef EDGEC_PROFILE
    for (uint32_t i = 0; i < EDGEC_IMAGE_NODES; i++)
        edgec_node_ticks[i] = 0;
    mark_ticks = edgec_port_ticks();
#endif
    before = edgec_port_ticks();
    rc = flush ? EDGEC_IMAGE_FLUSH(state, edgec_arena) : EDGEC_IMAGE_STEP(state, edgec_arena);
    last_ticks = edgec_port_ticks_since(before);
#ifdef EDGEC_PROFILE
    /* The marks and dumps in between are the harness's, not the model's. */
    last_ticks = edgec_port_ticks_since(mark_ticks);
    for (uint32_t i = 0; i < EDGEC_IMAGE_NODES; i++)
        last_ticks += edgec_node_ticks[i];
#endif
    return rc;
}

static void reply(int32_t rc) {
    edgec_port_write(&rc, sizeof rc);
    if (rc == EDGEC_OUTPUT)
        write_outputs();
}

static void reply_word(uint32_t word) {
    edgec_port_write(&word, sizeof word);
}

static int step(void) {
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++)
        if (!edgec_port_read(inputs[i].data, inputs[i].bytes))
            return 0;
    reply(call_model(0));
    return 1;
}

static int32_t select_instance(void) {
    uint32_t k;
    if (!edgec_port_read(&k, sizeof k) || k >= EDGEC_IMAGE_INSTANCES)
        return EDGEC_E_ARG;
    selected = k;
    return EDGEC_OK;
}

static int32_t set_dump(void) {
    int32_t id;
    if (!edgec_port_read(&id, sizeof id))
        return EDGEC_E_ARG;
#ifdef EDGEC_PROFILE
    dump_request = id + 1;
    return EDGEC_OK;
#else
    return E_COMMAND;
#endif
}

static void report_memory(void) {
    const int here = 0;
    reply(EDGEC_OK);
    reply_word(edgec_port_stack_used(&here));
    reply_word(edgec_port_stack_size());
    reply_word((uint32_t)sizeof edgec_states[0]);
    reply_word(EDGEC_IMAGE_ARENA_BYTES);
}

static void report_nodes(void) {
#ifdef EDGEC_PROFILE
    reply(EDGEC_OK);
    for (uint32_t i = 0; i < EDGEC_IMAGE_NODES; i++)
        reply_word(edgec_node_ticks[i]);
#else
    reply(E_COMMAND);
#endif
}

static void report_cycles(void) {
#ifdef EDGEC_IMAGE_CYCLES
    reply(EDGEC_OK);
    for (uint32_t i = 0; i < EDGEC_IMAGE_CYCLES; i++)
        reply_word(edgec_cycles[i]);
#else
    reply(E_COMMAND);
#endif
}

int edgec_harness(void) {
    uint8_t command;
#ifdef EDGEC_IMAGE_CYCLES
    edgec_cycles_start();
#endif
    for (uint32_t k = 0; k < EDGEC_IMAGE_INSTANCES; k++) {
        if (EDGEC_IMAGE_INIT(&edgec_states[k]) != EDGEC_OK)
            return 73;
    }
    while (edgec_port_read(&command, 1)) {
        switch (command) {
        case 'S':
            if (!step())
                return 74;
            break;
        case 'F':
            reply(call_model(1));
            break;
        case 'R':
            reply(EDGEC_IMAGE_RESET(&edgec_states[selected]));
            break;
        case 'I':
            reply(select_instance());
            break;
        case 'D':
            reply(set_dump());
            break;
        case 'M':
            report_memory();
            break;
        case 'T':
            reply(EDGEC_OK);
            reply_word(last_ticks);
            break;
        case 'N':
            report_nodes();
            break;
        case 'C':
            report_cycles();
            break;
        case 'Q':
            return 0;
        default:
            reply(E_COMMAND);
            break;
        }
    }
    return 0;
}
