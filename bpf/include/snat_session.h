// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Sessions: tuples, the reverse entry's owner word, states and the ages that go with them. */
#ifndef BYPATH_SNAT_SESSION_H
#define BYPATH_SNAT_SESSION_H

#include "packet.h"
#include "snat_maps.h"

#define NSEC_PER_SEC 1000000000ULL

/*
 * nf_conntrack's defaults, so that a flow which outlives idleness under MASQUERADE outlives it here. They are the age
 * at which a port may be taken over, never an expiry: while no other flow wants the port a session has no end but LRU.
 */
#define SNAT_TCP_ESTABLISHED_SEC (5 * 24 * 3600) /* nf_conntrack_tcp_timeout_established */
#define SNAT_TCP_OPENING_SEC 120		 /* ..._syn_sent */
#define SNAT_TCP_CLOSING_SEC 120		 /* ..._fin_wait */
#define SNAT_TCP_CLOSED_SEC 60 /* Linux' TIME_WAIT: a SYN from the same port before may stall a second */
#define SNAT_UDP_ASSURED_SEC 180
#define SNAT_UDP_SEC 30 /* nf_conntrack_udp_timeout: one question and its answer */
#define SNAT_ICMP_SEC 30

typedef __u64 __attribute__((may_alias)) snat_word;

static __always_inline __u64 snat_word_of(__be32 pod_addr_be, __be16 pod_port_be, __u16 state)
{
	struct snat_owner owner = {.pod_addr_be = pod_addr_be, .pod_port_be = pod_port_be, .state = state};

	return *(snat_word *)&owner;
}

static __always_inline volatile __u64 *snat_word_in(struct snat_owner *owner)
{
	return (volatile snat_word *)owner;
}

static __always_inline struct snat_owner snat_owner_of(__u64 word)
{
	struct snat_owner owner = {};

	*(snat_word *)&owner = word;
	return owner;
}

static __always_inline bool snat_is_owner(__u64 word, __u64 mine)
{
	return (word & ~snat_word_of(0, 0, 0xffff)) == mine;
}

static __always_inline void snat_tuple_of(const struct packet *p, struct snat_tuple *t)
{
	*t = (struct snat_tuple){
		.src_be = p->src_be,
		.dst_be = p->dst_be,
		.sport_be = p->sport_be,
		.dport_be = p->dport_be,
		.proto = p->proto,
	};
}

static __always_inline void snat_tuple_reverse(const struct snat_tuple *t, struct snat_tuple *reverse)
{
	*reverse = (struct snat_tuple){
		.src_be = t->dst_be,
		.dst_be = t->src_be,
		.sport_be = t->dport_be,
		.dport_be = t->sport_be,
		.proto = t->proto,
	};
}

static __always_inline bool snat_closed(__u16 state)
{
	return state & SNAT_RESET || (state & (SNAT_FIN_OUT | SNAT_FIN_IN)) == (SNAT_FIN_OUT | SNAT_FIN_IN);
}

static __always_inline __u64 snat_timeout_ns(__u8 proto, __u16 state)
{
	if (proto == IPPROTO_UDP)
		return (state & SNAT_ASSURED ? SNAT_UDP_ASSURED_SEC : SNAT_UDP_SEC) * NSEC_PER_SEC;
	if (proto != IPPROTO_TCP)
		return SNAT_ICMP_SEC * NSEC_PER_SEC;
	if (snat_closed(state))
		return SNAT_TCP_CLOSED_SEC * NSEC_PER_SEC;
	if (state & (SNAT_FIN_OUT | SNAT_FIN_IN))
		return SNAT_TCP_CLOSING_SEC * NSEC_PER_SEC;
	return (state & SNAT_REPLIED ? SNAT_TCP_ESTABLISHED_SEC : SNAT_TCP_OPENING_SEC) * NSEC_PER_SEC;
}

/* Writes only what changes: a session's cache line is shared by the CPUs of both directions. */
static __always_inline void snat_touch(struct snat_owner *owner, __u64 word, __u16 bits, __u64 now_ns)
{
	__u64 add = snat_word_of(0, 0, bits);

	if (add & ~word)
		__sync_fetch_and_or(snat_word_in(owner), add);
	if (owner->last_seen_ns != now_ns)
		owner->last_seen_ns = now_ns;
}

static __always_inline __u16 snat_state_out(const struct packet *p, __u16 state)
{
	if (p->proto == IPPROTO_TCP)
		return (p->tcp_flags & TCP_FIN ? SNAT_FIN_OUT : 0) | (p->tcp_flags & TCP_RST ? SNAT_RESET : 0);
	return state & SNAT_REPLIED ? SNAT_ASSURED : 0;
}

static __always_inline __u16 snat_state_in(const struct packet *p)
{
	return SNAT_REPLIED | (p->tcp_flags & TCP_FIN ? SNAT_FIN_IN : 0) | (p->tcp_flags & TCP_RST ? SNAT_RESET : 0);
}

/* The state of an entry made by p: a TCP flow first seen past its SYN is an established one that lost its entry. */
static __always_inline __u16 snat_state_new(const struct packet *p)
{
	if (p->proto != IPPROTO_TCP || packet_opens_tcp(p))
		return 0;
	return SNAT_REPLIED | snat_state_out(p, 0);
}

/* Keeps a known session's reverse entry alive, or makes it again. False: the port has gone to another flow. */
static __always_inline bool snat_refresh(const struct packet *p, const struct snat_tuple *t,
					 const struct snat_session *session)
{
	__u64 mine = snat_word_of(t->src_be, t->sport_be, 0), now_ns = bpf_ktime_get_coarse_ns(), word;
	struct snat_owner *owner, fresh = {.last_seen_ns = now_ns};
	struct snat_tuple key;

	snat_tuple_reverse(t, &key);
	key.dst_be = session->nat_addr_be;
	key.dport_be = session->nat_port_be;
	owner = bpf_map_lookup_elem(&rev, &key);
	if (!owner) {
		*snat_word_in(&fresh) = mine | snat_word_of(0, 0, snat_state_new(p));
		if (bpf_map_update_elem(&rev, &key, &fresh, BPF_NOEXIST))
			return false;
		snat_count(SNAT_HEALED_REV);
		return true;
	}
	word = *snat_word_in(owner);
	if (!snat_is_owner(word, mine))
		return false;
	if (packet_opens_tcp(p) && word != mine)
		__sync_val_compare_and_swap(snat_word_in(owner), word, mine);
	snat_touch(owner, word, snat_state_out(p, snat_owner_of(word).state), now_ns);
	return true;
}

#endif
