// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Which flows are ours to translate, which came through the stack, and how fragments follow their first. */
#ifndef BYPATH_SNAT_FLOW_H
#define BYPATH_SNAT_FLOW_H

#include "snat_session.h"

#define SNAT_FRAG_SEC 30 /* net.ipv4.ipfrag_time: an identification seen longer ago is another datagram's */

/* Whether the network's pods leave with the node's address towards dst; multicast never does (as in MASQUERADE). */
static __always_inline bool snat_masquerades(__u32 network_id, __be32 dst_be)
{
	struct snat_nomasq key = {.prefixlen = 64, .network_id = network_id, .addr_be = dst_be};

	if (bpf_ntohl(dst_be) >= 0xe0000000)
		return false;
	return !bpf_map_lookup_elem(&nomasq, &key);
}

/* Whether a packet with tuple t answers a flow that reached the pod without us. */
static __always_inline bool snat_answers_stack(const struct snat_tuple *t)
{
	struct snat_tuple key;

	snat_tuple_reverse(t, &key);
	return bpf_map_lookup_elem(&stackflow, &key);
}

/* Notes that p, on its way to a pod, came through the stack. Every packet does: the lookup keeps it young in the LRU.
 */
static __always_inline void snat_note_stack(const struct packet *p)
{
	struct snat_stackflow fresh = {.first_seen_ns = bpf_ktime_get_coarse_ns()};
	struct snat_tuple key;

	if (!p->has_ports)
		return;
	snat_tuple_of(p, &key);
	if (bpf_map_lookup_elem(&stackflow, &key))
		return;
	if (!bpf_map_update_elem(&stackflow, &key, &fresh, BPF_ANY))
		snat_count(SNAT_STACKFLOW_NEW);
}

static __always_inline void snat_frag_key(const struct packet *p, __u8 hook, struct snat_frag_key *key)
{
	*key = (struct snat_frag_key){
		.src_be = p->src_be,
		.dst_be = p->dst_be,
		.id_be = p->id_be,
		.proto = p->proto,
		.hook = hook,
	};
}

/* Recorded for first fragments that are left alone too: an identification's last owner must not decide. */
static __always_inline void snat_frag_note(const struct packet *p, __u8 hook, __be32 addr_be)
{
	struct snat_frag frag = {.addr_be = addr_be, .seen_ns = bpf_ktime_get_coarse_ns()};
	struct snat_frag_key key;

	if (p->fragment != PACKET_FIRST)
		return;
	snat_frag_key(p, hook, &key);
	bpf_map_update_elem(&frags, &key, &frag, BPF_ANY);
}

static __always_inline const struct snat_frag *snat_frag_find(const struct packet *p, __u8 hook)
{
	const struct snat_frag *frag;
	struct snat_frag_key key;

	snat_frag_key(p, hook, &key);
	frag = bpf_map_lookup_elem(&frags, &key);
	if (!frag || (__s64)(bpf_ktime_get_coarse_ns() - frag->seen_ns) > (__s64)(SNAT_FRAG_SEC * NSEC_PER_SEC))
		return NULL;
	return frag;
}

static __always_inline int snat_verdict(long err, enum snat_stat done)
{
	snat_count(err ? SNAT_DROP_REWRITE : done);
	return err ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

#endif
