/* SPDX-License-Identifier: Apache-2.0 */
/* port_host.c: linked into the shared library Python loads. A profile build calls back at every
 * node. */
#include "edgec.h"

#ifdef EDGEC_PROFILE
#if defined(__GNUC__) && !defined(_WIN32)
#define EXPORT __attribute__((visibility("default")))
#else
#define EXPORT __declspec(dllexport)
#endif

typedef void (*edgec_mark_callback)(int id);
EXPORT void edgec_set_mark_callback(edgec_mark_callback callback);

static edgec_mark_callback on_mark;

EXPORT void edgec_set_mark_callback(edgec_mark_callback callback) {
    on_mark = callback;
}

void edgec_mark(int id) {
    if (on_mark != NULL)
        on_mark(id);
}
#else
/* C99 forbids an empty translation unit. */
typedef int edgec_port_host_is_empty;
#endif
