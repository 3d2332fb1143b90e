// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * An address leads to an id, and an id to a place in arrays: the verifier inlines an array's lookup, which makes it a
 * multiplication instead of a hash. All of it is about 8 MB for a node, whatever the number of CPUs.
 *
 * Most packets at a NIC are of pods without a limit, and should hardly notice. So an address is first looked for in its
 * slot of an array: nobody there, or another one alone, is the answer. Only where several have shared a slot ip2id is
 * asked, which has them all.
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

/* By edt_slot_of() an address. Written by user space only, in an order that never hides an address: addresses.py. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EDT_SLOTS);
	__type(key, __u32);
	__type(value, struct edt_slot);
} edt_slots SEC(".maps");

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

/* 0: no pod of ours has this address. */
static __always_inline __u32 edt_id_of(const struct edt_addr *addr)
{
	__u32 key = edt_slot_of(addr), *id;
	struct edt_slot *slot = bpf_map_lookup_elem(&edt_slots, &key);

	if (!slot || !slot->id)
		return 0;
	if (slot->id != EDT_SEVERAL)
		return edt_same_addr(&slot->addr, addr) ? slot->id : 0;
	id = bpf_map_lookup_elem(&ip2id, addr);
	return id ? *id : 0;
}

#endif
