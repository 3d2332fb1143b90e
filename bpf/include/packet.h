// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The parse cursor. packet_bytes() is the only place that touches packet memory; everything above it copies what it
 * needs into a struct packet, because any helper that writes to the packet invalidates pointers into it.
 */
#ifndef BYPATH_PACKET_H
#define BYPATH_PACKET_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define IP_OFFSET_MASK 0x1fff
#define IP_MORE_FRAGMENTS 0x2000
#define VLAN_VID_MASK 0x0fff
#define PACKET_VLAN_TAGS 2 /* in the payload: 802.1Q inside 802.1ad */
/* Above any offset an IPv4 header or the header quoted in an ICMP error can have; gives the verifier its bound. */
#define PACKET_OFFSET_MAX 255

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

enum packet_kind {
	PACKET_OK,
	PACKET_FOREIGN, /* not IPv4, or of another VLAN */
	PACKET_TRUNCATED,
};

enum packet_fragment {
	PACKET_WHOLE,
	PACKET_FIRST,
	PACKET_LATER,
};

struct packet {
	__u32 net_off;
	__u32 l4_off;
	__be32 src_be;
	__be32 dst_be;
	__be16 sport_be; /* ICMP echo request: identifier here and 0 in dport_be; echo reply: the other way round */
	__be16 dport_be;
	__be16 id_be;
	__u8 proto;
	__u8 fragment;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 has_ports; /* TCP, UDP or ICMP echo: the tuple names a flow */
};

struct packet_link {
	__u32 net_off;
	__be16 proto_be;
	__u16 vlan_id; /* 0: untagged or priority-tagged */
};

/* len bytes at off when they are linear. The barriers keep clang from merging two calls' loads of the context into one
 * 32-bit value that it extends later: the verifier sees a pointer there only in the load itself. */
static __always_inline void *packet_linear(struct __sk_buff *skb, __u32 off, __u32 len)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	barrier_var(data);
	barrier_var(end);
	return data + off + len <= end ? data + off : NULL;
}

/* A pointer to len linear bytes at off, or NULL when the packet ends before. Invalidates earlier pointers. */
static __always_inline void *packet_bytes(struct __sk_buff *skb, __u32 off, __u32 len)
{
	void *bytes;

	if (off > PACKET_OFFSET_MAX)
		return NULL;
	bytes = packet_linear(skb, off, len);
	if (bytes)
		return bytes;
	return bpf_skb_pull_data(skb, off + len) ? NULL : packet_linear(skb, off, len);
}

static __always_inline bool packet_link(struct __sk_buff *skb, struct packet_link *link)
{
	struct ethhdr *eth = packet_bytes(skb, 0, sizeof(*eth));

	if (!eth)
		return false;
	link->proto_be = eth->h_proto;
	link->net_off = sizeof(*eth);
	link->vlan_id = skb->vlan_present ? skb->vlan_tci & VLAN_VID_MASK : 0;
#pragma unroll
	for (int i = 0; i < PACKET_VLAN_TAGS; i++) {
		struct vlan_hdr *tag;

		if (link->proto_be != bpf_htons(ETH_P_8021Q) && link->proto_be != bpf_htons(ETH_P_8021AD))
			break;
		tag = packet_bytes(skb, sizeof(*eth) + i * sizeof(*tag), sizeof(*tag));
		if (!tag)
			return false;
		link->vlan_id |= bpf_ntohs(tag->h_vlan_TCI) & VLAN_VID_MASK;
		link->proto_be = tag->h_vlan_encapsulated_proto;
		link->net_off = sizeof(*eth) + (i + 1) * sizeof(*tag);
	}
	return true;
}

static __always_inline bool packet_icmp(struct __sk_buff *skb, struct packet *p)
{
	struct icmphdr *icmp = packet_bytes(skb, p->l4_off, sizeof(*icmp));

	if (!icmp)
		return false;
	p->icmp_type = icmp->type;
	if (icmp->type == ICMP_ECHO)
		p->sport_be = icmp->id;
	else if (icmp->type == ICMP_ECHOREPLY)
		p->dport_be = icmp->id;
	else
		return true;
	p->has_ports = 1;
	return true;
}

/* quoted: the packet stands inside an ICMP error, which need not quote more than 8 bytes of its transport header. */
static __always_inline bool packet_transport(struct __sk_buff *skb, struct packet *p, bool quoted)
{
	struct tcphdr *tcp;
	struct udphdr *udp;

	if (p->proto == IPPROTO_TCP && !quoted) {
		tcp = packet_bytes(skb, p->l4_off, sizeof(*tcp));
		if (!tcp)
			return false;
		p->tcp_flags = tcp->flags;
		p->sport_be = tcp->source;
		p->dport_be = tcp->dest;
		p->has_ports = 1;
	} else if (p->proto == IPPROTO_UDP || p->proto == IPPROTO_TCP) {
		udp = packet_bytes(skb, p->l4_off, sizeof(*udp));
		if (!udp)
			return false;
		p->sport_be = udp->source;
		p->dport_be = udp->dest;
		p->has_ports = 1;
	} else if (p->proto == IPPROTO_ICMP) {
		return packet_icmp(skb, p);
	}
	return true;
}

/* Fills p from the IPv4 header at off; a later fragment has no ports. */
static __always_inline enum packet_kind packet_ipv4(struct __sk_buff *skb, __u32 off, struct packet *p, bool quoted)
{
	struct iphdr *ip = packet_bytes(skb, off, sizeof(*ip));
	__u16 frag;

	if (!ip)
		return PACKET_TRUNCATED;
	if (ip->version_ihl >> 4 != 4 || (ip->version_ihl & 15) < 5)
		return PACKET_FOREIGN;
	__builtin_memset(p, 0, sizeof(*p));
	p->net_off = off;
	p->l4_off = off + (ip->version_ihl & 15) * 4;
	p->src_be = ip->saddr;
	p->dst_be = ip->daddr;
	p->id_be = ip->id;
	p->proto = ip->protocol;
	frag = bpf_ntohs(ip->frag_off);
	if (frag & IP_OFFSET_MASK) {
		p->fragment = PACKET_LATER;
		return PACKET_OK;
	}
	p->fragment = frag & IP_MORE_FRAGMENTS ? PACKET_FIRST : PACKET_WHOLE;
	return packet_transport(skb, p, quoted) ? PACKET_OK : PACKET_TRUNCATED;
}

/*
 * A frame tagged with a VLAN id belongs to the VLAN device above this one, which has its own address and its own
 * programs when it is an uplink; only untagged and priority-tagged frames are this device's.
 */
static __always_inline enum packet_kind packet_parse(struct __sk_buff *skb, struct packet *p)
{
	struct packet_link link;

	if (!packet_link(skb, &link))
		return PACKET_TRUNCATED;
	if (link.proto_be != bpf_htons(ETH_P_IP) || link.vlan_id)
		return PACKET_FOREIGN;
	return packet_ipv4(skb, link.net_off, p, false);
}

static __always_inline bool packet_is_icmp_error(const struct packet *p)
{
	if (p->proto != IPPROTO_ICMP || p->fragment != PACKET_WHOLE)
		return false;
	return p->icmp_type == ICMP_DEST_UNREACH || p->icmp_type == ICMP_TIME_EXCEEDED ||
	       p->icmp_type == ICMP_PARAMETERPROB;
}

/* The packet an ICMP error quotes. False when too little of it is quoted, or nothing that names a flow. */
static __always_inline bool packet_quoted(struct __sk_buff *skb, const struct packet *error, struct packet *quoted)
{
	if (packet_ipv4(skb, error->l4_off + sizeof(struct icmphdr), quoted, true) != PACKET_OK)
		return false;
	return quoted->has_ports && quoted->fragment != PACKET_LATER;
}

static __always_inline bool packet_opens_tcp(const struct packet *p)
{
	return p->proto == IPPROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

#endif
