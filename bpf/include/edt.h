// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Structs that bypath-bandwidth-edt shares with its Python, plugins/bandwidth-edt/bandwidth_edt/layout.py. */
#ifndef BYPATH_EDT_H
#define BYPATH_EDT_H

#include "vmlinux.h"
#include <bpf/bpf_endian.h>

struct edt_addr {
	__be32 ip_be[4]; /* IPv4 as ::ffff:a.b.c.d */
};
_Static_assert(sizeof(struct edt_addr) == 16, "mirrored in Python");

/* One of the limited addresses that have this slot. */
struct edt_slot {
	struct edt_addr addr;
	__u32 id; /* 0: there is none; EDT_SEVERAL: there are more, or were */
};
_Static_assert(sizeof(struct edt_slot) == 20, "mirrored in Python");

#define EDT_SLOT_BITS 14
#define EDT_SLOTS (1 << EDT_SLOT_BITS)
#define EDT_SEVERAL 0xffffffff

/* Addresses that follow each other, as a node's do, have slots of their own. */
static inline __u32 edt_slot_of(const struct edt_addr *addr)
{
	__u32 folded = bpf_ntohl(addr->ip_be[0] ^ addr->ip_be[1] ^ addr->ip_be[2] ^ addr->ip_be[3]);

	return folded * 0x9e3779b1u >> (32 - EDT_SLOT_BITS);
}

static inline bool edt_same_addr(const struct edt_addr *a, const struct edt_addr *b)
{
	return a->ip_be[3] == b->ip_be[3] && a->ip_be[2] == b->ip_be[2] && a->ip_be[1] == b->ip_be[1] &&
	       a->ip_be[0] == b->ip_be[0];
}

enum edt_dir {
	EDT_EGRESS, /* out of the pod */
	EDT_INGRESS,
	EDT_GUARD, /* out of the pod, at the NIC behind a shaped pod: drops only */
};

/* Ids are 1..EDT_IDS - 1; a bucket's place in the arrays is id << EDT_DIR_BITS | dir. */
#define EDT_IDS 2048
#define EDT_DIR_BITS 2
#define EDT_BUCKETS (EDT_IDS << EDT_DIR_BITS)

/* cost in ns = bytes on the wire * ns_per_byte >> EDT_COST_SHIFT: a division less for each packet. Good for 1 kB/s to
 * 100 Gbit/s within 2e-5, and for packets of up to 16 MB. */
#define EDT_COST_SHIFT 20

enum edt_place {
	EDT_AT_POD = 1, /* on the pod's own device, or on its end on the host */
	EDT_AT_NIC = 2, /* on the node's uplinks: alone, or as a guard behind EDT_AT_POD */
	EDT_AT_IFB = 4, /* on the node's shared ifb */
};

/* Written by user space only. */
struct edt_cfg {
	__u64 rate_bytes_per_sec; /* 0: no limit */
	__u64 ns_per_byte;	  /* << EDT_COST_SHIFT */
	__u64 burst_ns;		  /* burst / rate: how far an idle bucket may lag behind the clock */
	__u64 horizon_ns;	  /* a packet that would have to wait longer is dropped */
	__u64 ecn_ns;		  /* one that waits longer is marked CE; 0: none is */
	__u64 early_ns; /* of bulk without ECN that waits longer one small packet a horizon is dropped; 0: none */
	__u32 prio;	/* reserved for classes at the NIC; 0 */
	__u32 flags;	/* enum edt_place bits: where the limit is kept */
};
_Static_assert(sizeof(struct edt_cfg) == 56, "mirrored in Python");

#define EDT_HIST_BUCKETS 16
#define EDT_HIST_SHIFT 16 /* in units of 65.536 us */

/* Written by the program only, so that a change of limits never sets the clock back. Shared by all CPUs: the counters
 * are added to atomically, which costs no more than finding a per-CPU value. */
struct edt_state {
	__u64 t_last_ns;   /* CLOCK_MONOTONIC: when the bucket's last packet will have been sent */
	__u64 t_sparse_ns; /* the same for the share of the rate that sparse flows may have at once */
	__u64 t_early_ns;  /* before this no packet is dropped early */
	__u64 bytes;	   /* of those let through */
	__u64 delayed;	   /* sent later than they came */
	__u64 ce;
	__u64 drop;
	__u64 bypass; /* of sparse flows, sent ahead of what waits */
	__u64 max_delay_ns;
	/* Packets let through by delay: [0] below 65.5 us, [n] from 2^(n-1) of them, [15] from 1.07 s. */
	__u64 hist[EDT_HIST_BUCKETS];
};
_Static_assert(sizeof(struct edt_state) == 200, "mirrored in Python");

/* What is remembered of one flow of a bucket, see edt_flow.h. */
struct edt_flow {
	__u64 last_ns;	/* when its last packet leaves */
	__u64 share_ns; /* its own clock, which runs EDT_FLOW_SHARE times as fast as the bucket's */
	__u32 tag;	/* the flow's hash */
	__u32 unused;
};
_Static_assert(sizeof(struct edt_flow) == 24, "mirrored in Python");

#define EDT_FLOW_SETS 32
#define EDT_FLOW_WAYS 2

struct edt_flows {
	struct edt_flow flow[EDT_FLOW_SETS * EDT_FLOW_WAYS];
};
_Static_assert(sizeof(struct edt_flows) == 1536, "mirrored in Python");

#endif
