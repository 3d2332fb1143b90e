// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * bypath-snat: masquerade of pods' IPv4 traffic without conntrack.
 *
 *   pod --> veth [pod_in: mark] --> raw: mark => notrack --> route --> NIC [nic_out: pod -> node]
 *   pod <-- veth [pod_out: unmark] <-- route <-- raw: mark => notrack <-- NIC [nic_in: node -> pod, mark]
 *
 * Hooks: nic_out and nic_in on the egress and ingress of every uplink, pod_in and pod_out on the ingress and egress of
 * a pod's host-side veth, as TCX links or as clsact filters in direct-action mode.
 * Verdicts: TC_ACT_UNSPEC always, so that other programs and filters run; TC_ACT_SHOT only for what would leave with a
 * pod's address although it should not, each with a counter SNAT_DROP_*.
 * Maps: snat_maps.h. IPv6, other EtherTypes, frames of a VLAN and cut-off headers pass untouched.
 */
#include "snat_bypass.h"
#include "snat_in.h"
#include "snat_out.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline bool snat_parse(struct __sk_buff *skb, struct packet *p)
{
	enum packet_kind kind = packet_parse(skb, p);

	if (kind == PACKET_TRUNCATED)
		snat_count(SNAT_SKIP_TRUNCATED);
	return kind == PACKET_OK;
}

SEC("tc")
int nic_out(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	struct snat_session session = {};
	struct snat_uplink *uplink;
	struct snat_pod *pod;
	struct packet p;

	snat_unmark(skb);
	if (!snat_parse(skb, &p))
		return TC_ACT_UNSPEC;
	pod = bpf_map_lookup_elem(&pods, &p.src_be);
	if (!pod)
		return TC_ACT_UNSPEC;
	uplink = bpf_map_lookup_elem(&uplinks, &ifindex);
	if (!uplink) {
		snat_count(SNAT_SKIP_UPLINK);
		return TC_ACT_UNSPEC;
	}
	if (p.fragment == PACKET_LATER)
		return snat_out_fragment(skb, &p, pod);
	if (packet_is_icmp_error(&p))
		return snat_out_error(skb, &p);
	if (!p.has_ports) {
		snat_frag_note(&p, SNAT_HOOK_NIC_OUT, 0);
		snat_count(SNAT_SKIP_PROTO);
		return TC_ACT_UNSPEC;
	}
	session.nat_addr_be = uplink->addr_be;
	session.network_id = pod->network_id;
	return snat_out_translate(skb, &p, &session);
}

SEC("tc")
int nic_in(struct __sk_buff *skb)
{
	struct checksum_rewrite r = {.side = CHECKSUM_DESTINATION};
	struct snat_owner *live, owner;
	struct snat_tuple key;
	struct packet p;
	__u64 word;

	if (!snat_parse(skb, &p))
		return TC_ACT_UNSPEC;
	if (p.fragment == PACKET_LATER)
		return snat_in_fragment(skb, &p);
	if (packet_is_icmp_error(&p))
		return snat_in_error(skb, &p);
	if (!p.has_ports)
		return TC_ACT_UNSPEC;
	snat_tuple_of(&p, &key);
	live = bpf_map_lookup_elem(&rev, &key);
	if (!live)
		return snat_in_other(&p);
	word = *snat_word_in(live);
	snat_touch(live, word, snat_state_in(&p), bpf_ktime_get_coarse_ns());
	owner = snat_owner_of(word);
	r.from_be = p.dst_be;
	r.to_be = owner.pod_addr_be;
	r.port_from_be = p.dport_be;
	r.port_to_be = owner.pod_port_be;
	snat_frag_note(&p, SNAT_HOOK_NIC_IN, owner.pod_addr_be);
	snat_mark(skb);
	return snat_verdict(checksum_rewrite(skb, &p, &r), SNAT_TRANSLATED_IN);
}

SEC("tc")
int pod_in(struct __sk_buff *skb)
{
	const struct snat_frag *frag;
	struct packet p;
	bool bypass;

	if (!snat_parse(skb, &p))
		return TC_ACT_UNSPEC;
	if (p.fragment == PACKET_LATER) {
		/* It names no flow: it goes the way of its first, or the stack would see half a datagram. */
		frag = snat_frag_find(&p, SNAT_HOOK_POD_IN);
		bypass = frag && frag->addr_be;
	} else {
		bypass = snat_bypasses(skb, &p);
		snat_frag_note(&p, SNAT_HOOK_POD_IN, bypass ? p.src_be : 0);
	}
	if (bypass) {
		snat_mark(skb);
		snat_count(SNAT_BYPASS);
	}
	return TC_ACT_UNSPEC;
}

SEC("tc")
int pod_out(struct __sk_buff *skb)
{
	struct packet p;

	/* Later fragments have no ports to note; their first had. */
	if (!snat_is_marked(skb) && snat_parse(skb, &p))
		snat_note_stack(&p);
	snat_unmark(skb);
	return TC_ACT_UNSPEC;
}
