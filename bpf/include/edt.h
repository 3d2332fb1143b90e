// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Structs that bypath-bandwidth-edt shares with its Python, plugins/bandwidth-edt/bandwidth_edt/layout.py. */
#ifndef BYPATH_EDT_H
#define BYPATH_EDT_H

#include "vmlinux.h"

struct edt_addr {
	__u8 ip[16]; /* IPv4 as ::ffff:a.b.c.d */
};
_Static_assert(sizeof(struct edt_addr) == 16, "mirrored in Python");

struct edt_bucket {
	__u32 id;
	__u32 dir;
};
_Static_assert(sizeof(struct edt_bucket) == 8, "mirrored in Python");

enum edt_dir {
	EDT_EGRESS, /* out of the pod */
	EDT_INGRESS,
};

/* Written by user space only. */
struct edt_cfg {
	__u64 rate_bytes_per_sec; /* 0: no limit */
	__u64 burst_ns;		  /* burst / rate: how far an idle bucket may lag behind the clock */
	__u64 horizon_ns;	  /* a packet that would have to wait longer is dropped */
	__u64 ecn_ns;		  /* one that waits longer is marked CE; 0: none is */
	__u32 prio;		  /* reserved for classes at the NIC; 0 */
	__u32 flags;		  /* reserved; 0 */
};
_Static_assert(sizeof(struct edt_cfg) == 40, "mirrored in Python");

/* Written by the program only, so that a change of limits never sets the clock back. */
struct edt_state {
	__u64 t_last_ns;      /* CLOCK_MONOTONIC: when the bucket's last packet will have been sent */
	__u64 t_last_prio_ns; /* reserved for the sparse flows' own share of the rate */
};
_Static_assert(sizeof(struct edt_state) == 16, "mirrored in Python");

#define EDT_HIST_BUCKETS 16
#define EDT_HIST_SHIFT 16 /* in units of 65.536 us */

struct edt_stats {
	__u64 pkts; /* of those let through */
	__u64 bytes;
	__u64 delayed; /* sent later than they came */
	__u64 ce;
	__u64 drop;
	__u64 bypass; /* reserved for sparse flows */
	__u64 max_delay_ns;
	/* Packets by delay: [0] below 65.5 us, [n] from 2^(n-1) of them, [15] from 1.07 s. */
	__u64 hist[EDT_HIST_BUCKETS];
};
_Static_assert(sizeof(struct edt_stats) == 184, "mirrored in Python");

#endif
