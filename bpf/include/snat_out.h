// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* nic_out: a packet from a pod leaves by an uplink. */
#ifndef BYPATH_SNAT_OUT_H
#define BYPATH_SNAT_OUT_H

#include "checksum.h"
#include "snat_flow.h"
#include "snat_port.h"

static __always_inline struct checksum_rewrite snat_outward(const struct snat_tuple *t, const struct snat_session *s)
{
	return (struct checksum_rewrite){
		.from_be = t->src_be,
		.to_be = s->nat_addr_be,
		.port_from_be = t->sport_be,
		.port_to_be = s->nat_port_be,
		.side = CHECKSUM_SOURCE,
	};
}

static __always_inline int snat_out_fragment(struct __sk_buff *skb, const struct packet *p, const struct snat_pod *pod)
{
	const struct snat_frag *frag = snat_frag_find(p, SNAT_HOOK_NIC_OUT);
	struct checksum_rewrite r = {.from_be = p->src_be, .side = CHECKSUM_SOURCE};

	if (!frag) {
		if (!snat_masquerades(pod->network_id, p->dst_be))
			return TC_ACT_UNSPEC;
		snat_count(SNAT_DROP_FRAGMENT);
		return TC_ACT_SHOT;
	}
	r.to_be = frag->addr_be;
	if (!r.to_be)
		return TC_ACT_UNSPEC;
	return snat_verdict(checksum_rewrite_ip(skb, p, &r), SNAT_FRAG_OUT);
}

/* A pod complains about a packet it got: what it quotes is the answer to one of its sessions. */
static __always_inline int snat_out_error(struct __sk_buff *skb, const struct packet *p)
{
	struct snat_tuple answer, t;
	struct snat_session *live;
	struct checksum_rewrite r;
	struct packet quoted;
	long err;

	if (!packet_quoted(skb, p, &quoted))
		return TC_ACT_UNSPEC;
	snat_tuple_of(&quoted, &answer);
	snat_tuple_reverse(&answer, &t);
	live = bpf_map_lookup_elem(&fwd, &t);
	if (!live || quoted.dst_be != p->src_be) {
		snat_count(SNAT_SKIP_ICMP);
		return TC_ACT_UNSPEC;
	}
	r = snat_outward(&t, live);
	r.side = CHECKSUM_DESTINATION;
	err = checksum_rewrite_quoted(skb, p, &quoted, &r);
	r.side = CHECKSUM_SOURCE;
	return snat_verdict(err ?: checksum_rewrite_ip(skb, p, &r), SNAT_ICMP_OUT);
}

/* Whether t has a session under the network and address in *session; then its port is filled in. */
static __always_inline bool snat_out_known(const struct snat_tuple *t, struct snat_session *session)
{
	const struct snat_session *live = bpf_map_lookup_elem(&fwd, t);

	if (!live || live->network_id != session->network_id || live->nat_addr_be != session->nat_addr_be)
		return false;
	session->nat_port_be = live->nat_port_be;
	return true;
}

/*
 * The session of a packet from a pod. A known one goes on without asking the network's settings, which may have
 * changed since; a SYN asks again. TC_ACT_UNSPEC, and whether there is a session; or TC_ACT_SHOT.
 */
static __always_inline int snat_out_session(struct __sk_buff *skb, const struct packet *p, const struct snat_tuple *t,
					    struct snat_session *session, bool *found)
{
	bool known = snat_out_known(t, session), opening = packet_opens_tcp(p);

	*found = false;
	if (!known || opening) {
		if (!bpf_map_lookup_elem(&networks, &session->network_id)) {
			snat_count(SNAT_SKIP_NETWORK);
			return TC_ACT_UNSPEC;
		}
		if (!snat_masquerades(session->network_id, p->dst_be))
			return TC_ACT_UNSPEC;
		/* Neither a pod's answer to an echo request nor to a peer that reached it directly opens a session. */
		if ((p->proto == IPPROTO_ICMP && p->icmp_type == ICMP_ECHOREPLY) ||
		    (!opening && snat_answers_stack(t))) {
			snat_count(SNAT_SKIP_REPLY);
			return TC_ACT_UNSPEC;
		}
	}
	*found = true;
	if (known && snat_refresh(p, t, session))
		return TC_ACT_UNSPEC;
	if (snat_allocate(skb, p, t, session))
		return TC_ACT_UNSPEC;
	snat_count(SNAT_DROP_PORTS);
	return TC_ACT_SHOT;
}

static __always_inline int snat_out_translate(struct __sk_buff *skb, const struct packet *p,
					      struct snat_session *session)
{
	struct checksum_rewrite r;
	struct snat_tuple t;
	bool found;
	int verdict;

	snat_tuple_of(p, &t);
	verdict = snat_out_session(skb, p, &t, session, &found);
	if (verdict != TC_ACT_UNSPEC)
		return verdict;
	snat_frag_note(p, SNAT_HOOK_NIC_OUT, found ? session->nat_addr_be : 0);
	if (!found)
		return TC_ACT_UNSPEC;
	r = snat_outward(&t, session);
	return snat_verdict(checksum_rewrite(skb, p, &r), SNAT_TRANSLATED_OUT);
}

#endif
