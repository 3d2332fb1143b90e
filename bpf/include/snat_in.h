// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* nic_in: a packet arrives at an uplink, perhaps for a session. */
#ifndef BYPATH_SNAT_IN_H
#define BYPATH_SNAT_IN_H

#include "checksum.h"
#include "snat_flow.h"
#include "snat_mark.h"

static __always_inline int snat_in_fragment(struct __sk_buff *skb, const struct packet *p)
{
	const struct snat_frag *frag = snat_frag_find(p, SNAT_HOOK_NIC_IN);
	struct checksum_rewrite r = {.from_be = p->dst_be, .side = CHECKSUM_DESTINATION};

	if (!frag || !frag->addr_be)
		return TC_ACT_UNSPEC;
	r.to_be = frag->addr_be;
	snat_mark(skb);
	return snat_verdict(checksum_rewrite_ip(skb, p, &r), SNAT_FRAG_IN);
}

/* A router complains about a packet of ours: what it quotes is a session's translated packet. */
static __always_inline int snat_in_error(struct __sk_buff *skb, const struct packet *p)
{
	struct checksum_rewrite r = {.side = CHECKSUM_SOURCE};
	struct snat_owner *live, owner;
	struct snat_tuple sent, key;
	struct packet quoted;
	long err;

	if (!packet_quoted(skb, p, &quoted) || quoted.src_be != p->dst_be)
		return TC_ACT_UNSPEC;
	snat_tuple_of(&quoted, &sent);
	snat_tuple_reverse(&sent, &key);
	live = bpf_map_lookup_elem(&rev, &key);
	if (!live)
		return TC_ACT_UNSPEC;
	owner = snat_owner_of(*snat_word_in(live));
	r.from_be = sent.src_be;
	r.to_be = owner.pod_addr_be;
	r.port_from_be = sent.sport_be;
	r.port_to_be = owner.pod_port_be;
	err = checksum_rewrite_quoted(skb, p, &quoted, &r);
	r.side = CHECKSUM_DESTINATION;
	snat_mark(skb);
	return snat_verdict(err ?: checksum_rewrite_ip(skb, p, &r), SNAT_ICMP_IN);
}

/* Not a session's. An ipvlan pod has no veth where pod_out could note that the flow reached it directly. */
static __always_inline int snat_in_other(const struct packet *p)
{
	struct snat_pod *pod = bpf_map_lookup_elem(&pods, &p->dst_be);

	if (pod && !pod->host_ifindex)
		snat_note_stack(p);
	snat_frag_note(p, SNAT_HOOK_NIC_IN, 0);
	return TC_ACT_UNSPEC;
}

#endif
