// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * One bucket an id and direction; both addresses of a dual-stack pod lead to one id. Not preallocated: a node rarely
 * has more than a few hundred pods, and a per-CPU value costs its size times the CPUs.
 */
#ifndef BYPATH_EDT_MAPS_H
#define BYPATH_EDT_MAPS_H

#include "build.h"
#include "edt.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct edt_addr);
	__type(value, __u32);
} ip2id SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct edt_bucket);
	__type(value, struct edt_cfg);
} edt_cfg SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct edt_bucket);
	__type(value, struct edt_state);
} edt_state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct edt_bucket);
	__type(value, struct edt_stats);
} edt_stats SEC(".maps");

#endif
