// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#ifndef BYPATH_SNAT_MAPS_H
#define BYPATH_SNAT_MAPS_H

#include "build.h"
#include "snat.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __be32);
	__type(value, struct snat_pod);
} pods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct snat_network);
} networks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct snat_nomasq);
	__type(value, __u32);
} nomasq SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* ifindex */
	__type(value, struct snat_uplink);
} uplinks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct snat_tuple);
	__type(value, struct snat_session);
} fwd SEC(".maps");

/*
 * LRU as well: nothing of ours runs between two CNI calls that could age a plain hash, and a full one would refuse
 * every new session of the node. What LRU can evict wrongly, one half of a live session, the other half repairs:
 * nic_out re-creates a missing reverse entry with every packet, and finds a missing forward entry again by its owner
 * among the same candidate ports.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct snat_tuple);
	__type(value, struct snat_owner);
} rev SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct snat_frag_key);
	__type(value, struct snat_frag);
} frags SEC(".maps");

/* Flows towards a pod, keyed as they arrive there, that came through conntrack or not through us at all. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct snat_tuple);
	__type(value, struct snat_stackflow);
} stackflow SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SNAT_STATS);
	__type(key, __u32);
	__type(value, __u64);
} snat_stats SEC(".maps");

/* Clang leaves an enum that only constants name out of BTF; this names it to bpftool and to the mirror's test. */
const volatile enum snat_stat snat_stats_end = SNAT_STATS;

static __always_inline void snat_count(enum snat_stat stat)
{
	__u32 key = stat;
	__u64 *count = bpf_map_lookup_elem(&snat_stats, &key);

	if (count)
		(*count)++;
}

#endif
