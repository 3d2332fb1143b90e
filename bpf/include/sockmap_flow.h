// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Which way a message goes: into the peer's queue at once, or by TCP.
 *
 * A receiver reads what was redirected before what came by TCP. So a message is redirected only when the peer has read
 * all that went by TCP before: nothing, as a rule, or what was sent before the peer had entered the map, or what was
 * sent while its queue was full. A redirection knows no back-pressure, TCP does: above the limits below messages go by
 * TCP, whose window then stops the sender, until the peer has caught up.
 */
#ifndef BYPATH_SOCKMAP_FLOW_H
#define BYPATH_SOCKMAP_FLOW_H

#include "sockmap_kernel.h"
#include "sockmap_maps.h"

/* About a TCP window. What every direction may queue however full the node, and what it may redirect before it looks
 * again whether the node is full. */
#define SM_WINDOW_BYTES (256 * 1024)
#define SM_PAGE_SHIFT 12
/* A peer unheard of after so many messages will not come: it was refused, or its address was forgotten. */
#define SM_MISSES 64

/* Relocated to false where tcp_bpf counts redirected bytes as read from TCP, so that copied_seq tells nothing. */
static __always_inline bool sm_kernel_counts(void)
{
	struct sk_psock *psock = NULL;

	return bpf_core_field_exists(psock->msg_tot_len);
}

static __always_inline bool sm_has_met_peer(struct sm_sock *own)
{
	__u64 *met;

	if (own->peer_sock)
		return true;
	met = bpf_map_lookup_elem(&half, &own->peer);
	if (!met) {
		if (++own->missed >= SM_MISSES)
			own->route = SM_TCP_FOR_GOOD;
		return false;
	}
	own->peer_sock = *met;
	bpf_map_delete_elem(&half, &own->peer);
	return true;
}

/* True when nothing is under way by TCP. */
static __always_inline bool sm_peer_has_read_all(struct sm_sock *own, struct tcp_sock *tp)
{
	__u32 write_seq = tp->write_seq;

	if (write_seq == own->read_seq)
		return true;
	if (!sm_kernel_counts()) {
		own->route = SM_TCP_FOR_GOOD;
		return false;
	}
	if (SM_READ(struct tcp_sock, own->peer_sock, copied_seq) != write_seq)
		return false;
	own->read_seq = write_seq;
	return true;
}

/* Bytes in the peer's queue. */
static __always_inline __u64 sm_queued_bytes(struct sm_sock *own)
{
	__u64 user_data = (__u64)SM_READ(struct sock, own->peer_sock, sk_user_data);
	struct sk_psock *psock = (struct sk_psock *)(user_data & ~SK_USER_DATA_BITS);
	struct list_head *head = &psock->ingress_msg;

	if (sm_kernel_counts())
		return SM_READ(struct sk_psock, psock, msg_tot_len);
	if (BPF_CORE_READ(head, next) == head)
		own->queued_bytes = 0;
	return own->queued_bytes;
}

static __always_inline bool sm_node_is_full(struct tcp_sock *tp)
{
	struct proto *prot = tp->inet_conn.icsk_inet.sk.__sk_common.skc_prot;
	__s64 pages = 0, limit_pages = 0;
	struct sm_node *settings;
	__u32 first = 0;

	bpf_probe_read_kernel(&pages, sizeof(pages), prot->memory_allocated);
	settings = bpf_map_lookup_elem(&node, &first);
	if (settings && settings->limit_bytes)
		limit_pages = settings->limit_bytes >> SM_PAGE_SHIFT;
	else
		bpf_probe_read_kernel(&limit_pages, sizeof(limit_pages), prot->sysctl_mem);
	return pages > limit_pages;
}

/* One message fits into an empty queue whatever its size. */
static __always_inline bool sm_has_room(struct sm_sock *own, struct tcp_sock *tp, __u32 size)
{
	__u64 queued = sm_queued_bytes(own);

	if (!queued) {
		own->unasked_bytes = 0;
		return true;
	}
	if (queued + size > own->limit_bytes)
		return false;
	if (own->unasked_bytes + size <= SM_WINDOW_BYTES)
		return true;
	if (queued + size > SM_WINDOW_BYTES && sm_node_is_full(tp))
		return false;
	own->unasked_bytes = 0;
	return true;
}

static __always_inline bool sm_may_redirect(struct sm_sock *own, struct tcp_sock *tp, __u32 size)
{
	if (own->route == SM_TCP_FOR_GOOD)
		return false;
	/* Set since the connection was established, by setsockopt(). */
	if (tp->inet_conn.icsk_ulp_ops || tp->inet_conn.icsk_inet.sk.__sk_common.skc_flags & SK_FLAG(SOCK_ZEROCOPY)) {
		own->route = SM_TCP_FOR_GOOD;
		return false;
	}
	return sm_has_met_peer(own) && sm_peer_has_read_all(own, tp) && sm_has_room(own, tp, size);
}

static __always_inline void sm_went_by_tcp(struct sm_sock *own, struct sm_counters *count, __u16 before, __u32 size)
{
	if (before == SM_NEW)
		count->fallback_conns++;
	else if (before == SM_REDIRECTING && own->route != SM_TCP_FOR_GOOD)
		count->spills++;
	if (own->route != SM_TCP_FOR_GOOD)
		own->route = SM_BY_TCP;
	count->passed_msgs++;
	count->passed_bytes += size;
}

static __always_inline void sm_was_redirected(struct sm_sock *own, struct sm_counters *count, __u32 size)
{
	own->route = SM_REDIRECTING;
	own->queued_bytes += size;
	own->unasked_bytes += size;
	count->redirected_msgs++;
	count->redirected_bytes += size;
}

#endif
