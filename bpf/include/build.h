// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Which object file the pinned programs came from; the loader writes it last, so a half-made load has none. */
#ifndef BYPATH_BUILD_H
#define BYPATH_BUILD_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct build_id {
	__u8 sha256[32];
};
_Static_assert(sizeof(struct build_id) == 32, "mirrored in Python");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct build_id);
} build SEC(".maps");

#endif
