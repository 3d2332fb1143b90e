// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * pod_in: may a packet from a pod go around conntrack?
 *
 * Yes when both its directions are ours: it goes straight to another pod of this node, or nic_out will translate it
 * and nic_in its answers. No when it answers something that came through the stack (a Service, a probe, a NodePort):
 * conntrack must undo there what it did. A TCP packet in mid-stream without a session may be of a connection that
 * conntrack held before we were here, so conntrack decides.
 */
#ifndef BYPATH_SNAT_BYPASS_H
#define BYPATH_SNAT_BYPASS_H

#include "snat_flow.h"
#include "snat_mark.h"

static __always_inline bool snat_is_session(const struct snat_tuple *t, __u32 network_id)
{
	struct snat_session *live = bpf_map_lookup_elem(&fwd, t);

	return live && live->network_id == network_id;
}

static __always_inline bool snat_has_veth(__be32 addr_be)
{
	struct snat_pod *pod = bpf_map_lookup_elem(&pods, &addr_be);

	return pod && pod->host_ifindex;
}

/*
 * Whether the route to dst leaves by an uplink. Addresses of the node itself (its NodePorts, a node-local DNS cache)
 * are not outside however the CIDRs are configured, nor is what lies behind another device.
 */
static __always_inline bool snat_leaves_by_uplink(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_fib_lookup fib = {
		.family = AF_INET,
		.l4_protocol = p->proto,
		.ifindex = skb->ifindex,
		.ipv4_src = p->src_be,
		.ipv4_dst = p->dst_be,
	};
	long err = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);

	if (err != BPF_FIB_LKUP_RET_SUCCESS && err != BPF_FIB_LKUP_RET_NO_NEIGH)
		return false;
	return bpf_map_lookup_elem(&uplinks, &fib.ifindex);
}

/* An ICMP error goes the way of the flow it quotes, which the pod saw arriving. */
static __always_inline bool snat_error_bypasses(struct __sk_buff *skb, const struct packet *p, __u32 network_id)
{
	struct snat_tuple arrived, t;
	struct packet quoted;

	if (!packet_quoted(skb, p, &quoted))
		return false;
	snat_tuple_of(&quoted, &arrived);
	if (bpf_map_lookup_elem(&stackflow, &arrived))
		return false;
	snat_tuple_reverse(&arrived, &t);
	return snat_has_veth(p->dst_be) || snat_is_session(&t, network_id);
}

static __always_inline bool snat_bypasses(struct __sk_buff *skb, const struct packet *p)
{
	struct snat_pod *pod = bpf_map_lookup_elem(&pods, &p->src_be);
	bool opening = packet_opens_tcp(p);
	struct snat_tuple t;

	if (!pod)
		return false;
	if (packet_is_icmp_error(p))
		return snat_error_bypasses(skb, p, pod->network_id);
	if (!p->has_ports)
		return false;
	snat_tuple_of(p, &t);
	if (snat_answers_stack(&t))
		return false;
	if (snat_has_veth(p->dst_be))
		return true;
	/* As in nic_out: a known session goes on, a SYN asks the settings again. */
	if (!opening && snat_is_session(&t, pod->network_id))
		return true;
	if (p->proto == IPPROTO_TCP && !opening)
		return false;
	if (p->proto == IPPROTO_ICMP && p->icmp_type == ICMP_ECHOREPLY)
		return false;
	return snat_masquerades(pod->network_id, p->dst_be) && snat_leaves_by_uplink(skb, p);
}

#endif
