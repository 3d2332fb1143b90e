// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The port a pod's flow leaves with: its own when that is in range and free, else one of the candidates that follow
 * from the flow's hash. Taken ports are found again by their owner and taken over when nobody misses them.
 */
#ifndef BYPATH_SNAT_PORT_H
#define BYPATH_SNAT_PORT_H

#include "snat_session.h"

#define SNAT_CANDIDATES 32 /* after the pod's own port; five fail with the fill's fifth power */
#define SNAT_ATTEMPTS 3	   /* searches that may lose their find to another CPU */

enum snat_class {
	SNAT_CLASS_IDLE,
	SNAT_CLASS_CLOSED,
	SNAT_CLASS_EARLY,
	SNAT_CLASS_NONE,
};

enum snat_found {
	SNAT_FOUND_NONE,
	SNAT_FOUND_FREE,
	SNAT_FOUND_OWN,
};

struct snat_search {
	struct __sk_buff *skb;
	struct snat_tuple key; /* of rev; dport_be is the candidate */
	__u64 mine;
	__u64 now_ns;
	__u64 victim_word;
	__s64 victim_age_ns;
	__u32 hash;
	__u32 first;
	__u32 span;
	__u32 victim_class;
	__u32 found;
	__u32 opening;
	__be16 pod_port_be;
	__be16 found_be;
	__be16 victim_be;
	__u16 new_state;
};

/* A socket of the node that would get what comes back to this port; its traffic never passes our maps. */
static __always_inline bool snat_port_is_local(struct __sk_buff *skb, const struct snat_tuple *key)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;

	t.ipv4.saddr = key->src_be;
	t.ipv4.daddr = key->dst_be;
	t.ipv4.sport = key->sport_be;
	t.ipv4.dport = key->dport_be;
	if (key->proto == IPPROTO_TCP)
		sk = bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);
	else if (key->proto == IPPROTO_UDP)
		sk = bpf_sk_lookup_udp(skb, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);
	else
		return false;
	if (!sk)
		return false;
	bpf_sk_release(sk);
	return true;
}

static __always_inline long snat_candidate_free(struct snat_search *s)
{
	if (s->found)
		return 0;
	if (snat_port_is_local(s->skb, &s->key)) {
		snat_count(SNAT_PORT_LOCAL);
		return 0;
	}
	s->found = SNAT_FOUND_FREE;
	s->found_be = s->key.dport_be;
	/* Anything but a SYN may belong to a session whose forward entry is gone: look at every candidate for it. */
	return s->opening ? 1 : 0;
}

/* Idle past the timeout first; then closed, last because a reused port may stall; within a class the oldest. */
static __always_inline void snat_candidate_taken(struct snat_search *s, const struct snat_owner *owner, __u64 word)
{
	__u16 state = snat_owner_of(word).state;
	/* Signed: another CPU's coarse clock may be ahead of ours. */
	__s64 age_ns = s->now_ns - owner->last_seen_ns;
	bool idle = age_ns >= (__s64)snat_timeout_ns(s->key.proto, state);
	__u32 class;

	if (s->key.proto == IPPROTO_TCP && snat_closed(state))
		class = idle ? SNAT_CLASS_CLOSED : SNAT_CLASS_EARLY;
	else
		class = idle ? SNAT_CLASS_IDLE : SNAT_CLASS_NONE;
	snat_count(SNAT_PORT_RETRY);
	if (class > s->victim_class || class == SNAT_CLASS_NONE)
		return;
	if (class == s->victim_class && age_ns <= s->victim_age_ns)
		return;
	s->victim_class = class;
	s->victim_age_ns = age_ns;
	s->victim_word = word;
	s->victim_be = s->key.dport_be;
}

/* bpf_loop callback: candidate 0 is the pod's own port, the others follow from the flow's hash and so never change. */
static long snat_candidate(__u32 i, struct snat_search *s)
{
	__u32 port = bpf_ntohs(s->pod_port_be);
	struct snat_owner *owner;
	__u64 word;

	if (i)
		port = s->first + (s->hash + i) % s->span;
	else if (port - s->first >= s->span)
		return 0;
	s->key.dport_be = bpf_htons(port);
	owner = bpf_map_lookup_elem(&rev, &s->key);
	if (!owner)
		return snat_candidate_free(s);
	word = *snat_word_in(owner);
	if (!snat_is_owner(word, s->mine)) {
		snat_candidate_taken(s, owner, word);
		return 0;
	}
	s->found = SNAT_FOUND_OWN;
	s->found_be = s->key.dport_be;
	return 1;
}

/*
 * One exchange of the owner word moves the port: a reader sees the old pod or the new one. The time goes first, so
 * that nobody finds the new owner beside the old one's age and takes it over in turn.
 */
static __always_inline bool snat_take_over(struct snat_search *s)
{
	struct snat_owner *owner, victim = snat_owner_of(s->victim_word);
	struct snat_tuple stale;

	s->key.dport_be = s->victim_be;
	owner = bpf_map_lookup_elem(&rev, &s->key);
	if (!owner || *snat_word_in(owner) != s->victim_word)
		return false;
	owner->last_seen_ns = s->now_ns;
	if (__sync_val_compare_and_swap(snat_word_in(owner), s->victim_word,
					s->mine | snat_word_of(0, 0, s->new_state)) != s->victim_word)
		return false;
	snat_tuple_reverse(&s->key, &stale);
	stale.src_be = victim.pod_addr_be;
	stale.sport_be = victim.pod_port_be;
	bpf_map_delete_elem(&fwd, &stale);
	if (s->victim_class == SNAT_CLASS_IDLE)
		snat_count(SNAT_TAKEN_IDLE);
	else
		snat_count(s->victim_class == SNAT_CLASS_CLOSED ? SNAT_TAKEN_CLOSED : SNAT_TAKEN_EARLY);
	return true;
}

/* One search; true: s->key is an entry of ours. */
static __always_inline bool snat_search_once(struct snat_search *s)
{
	struct snat_owner fresh = {.last_seen_ns = s->now_ns};

	s->found = SNAT_FOUND_NONE;
	s->victim_class = SNAT_CLASS_NONE;
	s->victim_age_ns = 0;
	bpf_loop(1 + SNAT_CANDIDATES, snat_candidate, s, 0);
	if (s->found == SNAT_FOUND_NONE)
		return s->victim_class != SNAT_CLASS_NONE && snat_take_over(s);
	s->key.dport_be = s->found_be;
	if (s->found == SNAT_FOUND_OWN) {
		snat_count(SNAT_HEALED_FWD);
		return true;
	}
	*snat_word_in(&fresh) = s->mine | snat_word_of(0, 0, s->new_state);
	if (bpf_map_update_elem(&rev, &s->key, &fresh, BPF_NOEXIST))
		return false;
	if (s->key.dport_be == s->pod_port_be)
		snat_count(SNAT_PORT_KEPT);
	return true;
}

static __always_inline __u32 snat_hash(const struct snat_tuple *t)
{
	__u32 h = t->src_be * 0x9e3779b1u;

	h = (h ^ t->dst_be) * 0x85ebca6bu;
	h = (h ^ (h >> 15) ^ ((__u32)t->sport_be << 16 | t->dport_be)) * 0xc2b2ae35u;
	h = (h ^ (h >> 13) ^ t->proto) * 0x27d4eb2fu;
	return h ^ (h >> 16);
}

/*
 * Finds or makes a port for t, and its forward entry. 0: none could be had; drop, the peer will try again. A global
 * function, which the verifier walks once on its own and not from every state of its caller.
 */
__noinline int snat_allocate(struct __sk_buff *skb, const struct packet *p, const struct snat_tuple *t,
			     struct snat_session *session)
{
	struct snat_search s = {.skb = skb, .now_ns = bpf_ktime_get_coarse_ns()};
	struct snat_network *network;
	struct snat_session made;
	struct snat_tuple key;

	if (!p || !t || !session)
		return 0;
	/* Copies on the own stack, which every supported verifier takes as map key and value. */
	made = *session;
	key = *t;
	network = bpf_map_lookup_elem(&networks, &made.network_id);
	if (!network || network->port_last < network->port_first)
		return 0;
	s.first = network->port_first;
	s.span = network->port_last - network->port_first + 1;
	snat_tuple_reverse(&key, &s.key);
	s.key.dst_be = made.nat_addr_be;
	s.hash = snat_hash(&key);
	s.mine = snat_word_of(key.src_be, key.sport_be, 0);
	s.pod_port_be = key.sport_be;
	s.opening = packet_opens_tcp(p);
	s.new_state = snat_state_new(p);
	for (int i = 0; i < SNAT_ATTEMPTS; i++) {
		if (!snat_search_once(&s))
			continue;
		made.nat_port_be = session->nat_port_be = s.key.dport_be;
		/* A full or contended LRU may refuse it; the next packet then finds the reverse entry as its own. */
		bpf_map_update_elem(&fwd, &key, &made, BPF_ANY);
		snat_count(SNAT_SESSION_NEW);
		return 1;
	}
	return 0;
}

#endif
