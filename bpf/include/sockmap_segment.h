// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * What comes by TCP to a socket of the map, segment by segment.
 *
 * A sender that was not told that a segment came sends it again, and may put it into one segment with what follows. TCP
 * keeps such a segment whole and skips what is old in it when the application reads. A verdict program's sockets are
 * read for it by tcp_read_skb(), which does not skip: the application would read the old bytes twice.
 */
#ifndef BYPATH_SOCKMAP_SEGMENT_H
#define BYPATH_SOCKMAP_SEGMENT_H

#include "sockmap_kernel.h"
#include "sockmap_maps.h"

/* bpf_skb_adjust_room() takes away 4 KiB - 1 at the most; the largest segment that is sent (BIG TCP) has 512 KiB. */
#define SM_CUT_BITS 11
#define SM_CUTS (512 * 1024 >> SM_CUT_BITS)

/* False when there is no memory for it. */
static __always_inline bool sm_cut(struct __sk_buff *skb, __u32 bytes)
{
	__u32 whole = bytes >> SM_CUT_BITS, rest = bytes & ((1 << SM_CUT_BITS) - 1);

	if (whole > SM_CUTS)
		return false;
	for (__u32 i = 0; i < SM_CUTS && i < whole; i++)
		if (bpf_skb_adjust_room(skb, -(1 << SM_CUT_BITS), 0, 0))
			return false;
	return !rest || !bpf_skb_adjust_room(skb, -(__s32)rest, 0, 0);
}

/* Cuts away what came before. False: the segment could not be made what it should be, or follows one that could not. */
static __always_inline bool sm_begins_where_the_last_ended(struct __sk_buff *skb)
{
	struct tcp_skb_cb *segment = (struct tcp_skb_cb *)&((struct sk_buff *)skb)->cb;
	__u32 begin = BPF_CORE_READ(segment, seq), end = BPF_CORE_READ(segment, end_seq);
	__u64 cookie = bpf_get_socket_cookie(skb);
	struct sm_seen *seen = bpf_map_lookup_elem(&seen_seq, &cookie);
	struct sm_seen first = {.end_seq = end};
	__s32 old;

	if (!seen) {
		/* The socket's first: nothing came before, and TCP does not keep what is old altogether. */
		bpf_map_update_elem(&seen_seq, &cookie, &first, BPF_ANY);
		return true;
	}
	old = seen->end_seq - begin;
	if (old > 0 && !sm_cut(skb, (__u32)old < skb->len ? (__u32)old : skb->len))
		seen->torn = true;
	seen->end_seq = end;
	return !seen->torn;
}

#endif
