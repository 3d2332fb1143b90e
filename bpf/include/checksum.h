// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Rewriting one address and port of a packet, or of the packet that an ICMP error quotes, with every checksum over it.
 *
 * A packet's own checksums go through bpf_l3_csum_replace and bpf_l4_csum_replace: they alone know whether the skb is
 * CHECKSUM_PARTIAL (GSO, veth), where the transport field holds the pseudo-header sum only and must follow the address
 * but not the port, or CHECKSUM_COMPLETE, where skb->csum must follow too. Stores use no BPF_F_RECOMPUTE_CSUM: a field
 * and the checksum over it change by amounts that cancel out in skb->csum.
 */
#ifndef BYPATH_CHECKSUM_H
#define BYPATH_CHECKSUM_H

#include "packet.h"

enum checksum_side {
	CHECKSUM_SOURCE,
	CHECKSUM_DESTINATION,
};

struct checksum_rewrite {
	__be32 from_be;
	__be32 to_be;
	__be16 port_from_be;
	__be16 port_to_be;
	__u32 side;
};

static __always_inline __u32 checksum_address_off(const struct packet *p, __u32 side)
{
	return p->net_off + (side == CHECKSUM_SOURCE ? 12 : 16);
}

static __always_inline __u32 checksum_port_off(const struct packet *p, __u32 side)
{
	if (p->proto == IPPROTO_ICMP)
		return p->l4_off + 4; /* the identifier, in both directions */
	return p->l4_off + (side == CHECKSUM_SOURCE ? 0 : 2);
}

static __always_inline __u32 checksum_field_off(const struct packet *p)
{
	if (p->proto == IPPROTO_TCP)
		return p->l4_off + 16;
	return p->l4_off + (p->proto == IPPROTO_UDP ? 6 : 2);
}

static __always_inline __u32 checksum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* The ones' complement difference of replacing a 16-bit field, and a 32-bit one. */
static __always_inline __u32 checksum_diff2(__u16 from, __u16 to)
{
	return (__u32)(__u16)~from + to;
}

static __always_inline __u32 checksum_diff4(__u32 from, __u32 to)
{
	return checksum_diff2((__u16)from, (__u16)to) + checksum_diff2(from >> 16, to >> 16);
}

static __always_inline __sum16 checksum_apply(__sum16 check, __u32 diff)
{
	return (__sum16)~checksum_fold((__u32)(__u16)~check + checksum_fold(diff));
}

/* Only the IP header: what a later fragment and an ICMP error need. */
static __always_inline long checksum_rewrite_ip(struct __sk_buff *skb, const struct packet *p,
						const struct checksum_rewrite *r)
{
	long err = bpf_l3_csum_replace(skb, p->net_off + 10, r->from_be, r->to_be, 4);

	return err ?: bpf_skb_store_bytes(skb, checksum_address_off(p, r->side), &r->to_be, 4, 0);
}

static __always_inline long checksum_rewrite(struct __sk_buff *skb, const struct packet *p,
					     const struct checksum_rewrite *r)
{
	__u32 check_off = checksum_field_off(p);
	/* A UDP checksum of zero means none and must stay; one that becomes zero is sent as ffff. */
	__u64 flags = p->proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	long err = 0;

	if (p->proto != IPPROTO_ICMP)
		err = bpf_l4_csum_replace(skb, check_off, r->from_be, r->to_be, flags | BPF_F_PSEUDO_HDR | 4);
	if (!err && r->port_from_be != r->port_to_be) {
		err = bpf_l4_csum_replace(skb, check_off, r->port_from_be, r->port_to_be, flags | 2);
		if (!err)
			err = bpf_skb_store_bytes(skb, checksum_port_off(p, r->side), &r->port_to_be, 2, 0);
	}
	return err ?: checksum_rewrite_ip(skb, p, r);
}

/* The quoted transport checksum, when it is quoted at all; returns by how much it changed the error's payload. */
static __always_inline long checksum_quoted_transport(struct __sk_buff *skb, const struct packet *quoted, __u32 diff,
						      __u32 *changed)
{
	__u32 off = checksum_field_off(quoted);
	__sum16 old, new;

	*changed = 0;
	if (bpf_skb_load_bytes(skb, off, &old, sizeof(old)))
		return 0;
	if (quoted->proto == IPPROTO_UDP && !old)
		return 0;
	new = checksum_apply(old, diff);
	if (quoted->proto == IPPROTO_UDP && !new)
		new = 0xffff;
	*changed = checksum_diff2(old, new);
	return bpf_skb_store_bytes(skb, off, &new, sizeof(new), 0);
}

/* Rewrites the quoted packet by r, and the error's own ICMP checksum over all of it. */
static __always_inline long checksum_rewrite_quoted(struct __sk_buff *skb, const struct packet *error,
						    const struct packet *quoted, const struct checksum_rewrite *r)
{
	__u32 address_diff = checksum_fold(checksum_diff4(r->from_be, r->to_be));
	__u32 port_diff = checksum_diff2(r->port_from_be, r->port_to_be);
	__u32 pseudo_diff = quoted->proto == IPPROTO_ICMP ? 0 : address_diff;
	__u32 transport_diff, total;
	__sum16 old, new;
	long err;

	err = bpf_skb_load_bytes(skb, quoted->net_off + 10, &old, sizeof(old));
	new = checksum_apply(old, address_diff);
	if (!err)
		err = bpf_skb_store_bytes(skb, quoted->net_off + 10, &new, sizeof(new), 0);
	if (!err)
		err = checksum_quoted_transport(skb, quoted, pseudo_diff + port_diff, &transport_diff);
	if (!err)
		err = bpf_skb_store_bytes(skb, checksum_address_off(quoted, r->side), &r->to_be, 4, 0);
	if (!err)
		err = bpf_skb_store_bytes(skb, checksum_port_off(quoted, r->side), &r->port_to_be, 2, 0);
	if (err)
		return err;
	total = address_diff + port_diff + transport_diff + checksum_diff2(old, new);
	return bpf_l4_csum_replace(skb, checksum_field_off(error), 0, checksum_fold(total), 0);
}

#endif
