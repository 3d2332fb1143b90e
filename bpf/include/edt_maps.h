// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * An address leads to an id, and an id to a place in arrays: the verifier inlines an array's lookup, which makes it a
 * multiplication instead of a hash. All of it is about 8 MB for a node, whatever the number of CPUs.
 */
#ifndef BYPATH_EDT_MAPS_H
#define BYPATH_EDT_MAPS_H

#include "build.h"
#include "edt.h"

/* Both addresses of a dual-stack pod lead to one id. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct edt_addr);
	__type(value, __u32);
} ip2id SEC(".maps");

/* id -> key of the attachment that has it. User space's alone: the programs do not look at it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, EDT_IDS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u64);
} edt_ids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EDT_BUCKETS);
	__type(key, __u32);
	__type(value, struct edt_cfg);
} edt_cfg SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EDT_BUCKETS);
	__type(key, __u32);
	__type(value, struct edt_state);
} edt_state SEC(".maps");

/* Of egress and ingress only: id << 1 | dir. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EDT_IDS << 1);
	__type(key, __u32);
	__type(value, struct edt_flows);
} edt_flows SEC(".maps");

/* NIC -> the node's ifb, both by ifindex; 0 while it is being made. Written by user space only. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} edt_ifbs SEC(".maps");

#endif
