// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * bypath-bandwidth-edt: a pod's rate as an earliest departure time for each packet, which fq below then keeps.
 *
 *   pod's socket --> eth0 [edt_pod_out: tstamp, CE, drop] --> fq on eth0 --> wire, master or host
 *   host --> pod's veth on the host [edt_pod_in: the same by destination] --> fq on that veth --> pod
 *
 *   pod --> NIC [edt_nic_out: as edt_pod_out, for pods that are not shaped themselves] --> mq and fq on the NIC
 *   pod --> NIC [edt_nic_guard: drops what is above the rate, of pods that may have taken their own fq away]
 *
 *   NIC [edt_to_ifb: those for limited pods without a veth] --> ifb [edt_pod_in] --> fq on it --> NIC, past tc --> pod
 *
 * Hook: egress of the pod's own eth0, of its veth on the host, or of the NIC; TCX link or clsact filter; fq is the root
 * qdisc, or the leaf of each queue. At the NIC before snat's programs, which change the address; edt_to_ifb is on the
 * NIC's ingress and comes last there, when the address is the pod's again.
 * Verdicts: TC_ACT_UNSPEC, or TC_ACT_SHOT for what would wait beyond the horizon. That comes before the charge: a
 * bucket that pays for packets nobody sends is slower than its rate. edt_to_ifb: TC_ACT_UNSPEC or a redirect.
 * Maps: edt_maps.h. A source address without an id, or an id without limits, passes untouched.
 */
#include "vmlinux.h"
#include "packet.h"
#include "edt_maps.h"
#include "edt_flow.h"

#define EDT_TRIES 4
#define EDT_EARLY_SEGS 2

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct edt_departure {
	__u64 now_ns;
	__u64 wanted_ns; /* when the packet would leave without a limit */
	__u64 at_ns;
};

/* The pod's own address: where the packet comes from, or goes to. */
static __always_inline bool edt_pod_addr(struct __sk_buff *skb, enum edt_dir dir, struct edt_addr *addr)
{
	struct packet_link link;
	struct ipv6hdr *ip6;
	struct iphdr *ip;

	if (!packet_link(skb, &link))
		return false;
	if (link.proto_be == bpf_htons(ETH_P_IP)) {
		ip = packet_bytes(skb, link.net_off, sizeof(*ip));
		if (!ip)
			return false;
		addr->ip_be[0] = addr->ip_be[1] = 0;
		addr->ip_be[2] = bpf_htonl(0xffff);
		addr->ip_be[3] = dir == EDT_INGRESS ? ip->daddr : ip->saddr;
		return true;
	}
	if (link.proto_be != bpf_htons(ETH_P_IPV6))
		return false;
	ip6 = packet_bytes(skb, link.net_off, sizeof(*ip6));
	if (!ip6)
		return false;
	__builtin_memcpy(addr->ip_be, dir == EDT_INGRESS ? &ip6->daddr : &ip6->saddr, sizeof(ip6->saddr));
	return true;
}

/*
 * Charges cost_ns to the bucket and says when the packet may leave. False: beyond the horizon, nothing charged.
 * Whoever loses the exchange four times adds without looking: then t_last_ns has just been moved by others, so no
 * burst needs to be limited, and no charge is ever lost.
 */
static __always_inline bool edt_charge(struct edt_state *state, const struct edt_cfg *cfg, __u64 cost_ns,
				       struct edt_departure *d)
{
	__u64 floor_ns = d->wanted_ns > cfg->burst_ns ? d->wanted_ns - cfg->burst_ns : 0;

#pragma unroll
	for (int i = 0; i < EDT_TRIES; i++) {
		__u64 last_ns = *(volatile __u64 *)&state->t_last_ns;

		d->at_ns = last_ns > floor_ns ? last_ns : floor_ns;
		if (d->at_ns > d->now_ns && d->at_ns - d->now_ns > cfg->horizon_ns)
			return false;
		if (__sync_val_compare_and_swap(&state->t_last_ns, last_ns, d->at_ns + cost_ns) == last_ns)
			return true;
	}
	d->at_ns = __sync_fetch_and_add(&state->t_last_ns, cost_ns);
	return true;
}

/* The bit length of the delay in units, at most EDT_HIST_BUCKETS - 1. */
static __always_inline __u32 edt_hist_bucket(__u64 delay_ns)
{
	__u64 units = delay_ns >> EDT_HIST_SHIFT;
	__u32 length = 0;

	if (units >> (EDT_HIST_BUCKETS - 2))
		return EDT_HIST_BUCKETS - 1;
#pragma unroll
	for (int step = EDT_HIST_BUCKETS / 2; step; step /= 2) {
		if (units >> step) {
			units >>= step;
			length += step;
		}
	}
	return length + (units != 0);
}

static __always_inline void edt_account(struct edt_state *state, __u32 len, __u64 delay_ns)
{
	__u32 bucket;

	__sync_fetch_and_add(&state->bytes, len);
	if (!delay_ns) {
		__sync_fetch_and_add(&state->hist[0], 1);
		return;
	}
	bucket = edt_hist_bucket(delay_ns);
	if (bucket < EDT_HIST_BUCKETS)
		__sync_fetch_and_add(&state->hist[bucket], 1);
	__sync_fetch_and_add(&state->delayed, 1);
	/* Of two that are larger than all before, either may stay. */
	if (delay_ns > state->max_delay_ns)
		state->max_delay_ns = delay_ns;
}

/*
 * The helper also says that the time is a monotonic departure time: a bare store leaves that open, and past the pod's
 * fq the stack would read the time as one of arrival. It refuses frames whose EtherType is not IP (payload VLAN tags).
 */
static __always_inline void edt_set_departure(struct __sk_buff *skb, __u64 at_ns)
{
	if (bpf_skb_set_tstamp(skb, at_ns, BPF_SKB_TSTAMP_DELIVERY_MONO))
		skb->tstamp = at_ns;
}

/* True when the packet may leave before what waits, and was charged to the share of those that may. */
static __always_inline bool edt_may_pass(struct edt_state *state, const struct edt_flow *flow, bool small,
					 __u64 cost_ns, __u64 now_ns)
{
	return flow && small && flow->last_ns <= now_ns && edt_sparse_fits(state, cost_ns, now_ns);
}

/*
 * Marks a packet that waits for longer than ecn_ns. False when it is to be dropped instead: it is bulk, cannot be
 * marked, waits for longer than early_ns, and none was dropped for that of late. So a sender without ECN hears of it
 * before the horizon tells it, and by one or two segments instead of all those of some GSO packets in a row: among bulk
 * one so small comes soon. Two CPUs may drop one each.
 */
static __always_inline bool edt_tell_sender(struct __sk_buff *skb, struct edt_state *state, const struct edt_cfg *cfg,
					    bool small, __u64 delay_ns, __u64 now_ns)
{
	if (!cfg->ecn_ns || delay_ns <= cfg->ecn_ns)
		return true;
	if (bpf_skb_ecn_set_ce(skb) == 1) {
		__sync_fetch_and_add(&state->ce, 1);
		return true;
	}
	if (small || !cfg->early_ns || delay_ns <= cfg->early_ns || now_ns < state->t_early_ns)
		return true;
	if (skb->gso_segs > EDT_EARLY_SEGS)
		return true;
	state->t_early_ns = now_ns + cfg->horizon_ns;
	return false;
}

static __always_inline int edt_limit(struct __sk_buff *skb, struct edt_state *state, const struct edt_cfg *cfg,
				     struct edt_flows *flows)
{
	struct edt_departure d = {.now_ns = bpf_ktime_get_ns(), .wanted_ns = skb->tstamp};
	__u64 cost_ns = (skb->wire_len * cfg->ns_per_byte + (1 << (EDT_COST_SHIFT - 1))) >> EDT_COST_SHIFT;
	struct edt_flow *flow = NULL;
	__u64 delay_ns = 0;
	bool small, fits;

	if (d.wanted_ns < d.now_ns)
		d.wanted_ns = d.now_ns;
	if (flows)
		flow = edt_flow_of(flows, bpf_get_hash_recalc(skb), d.now_ns);
	small = flow && edt_flow_is_small(flow, cost_ns, d.now_ns);
	fits = edt_charge(state, cfg, cost_ns, &d);
	if (!fits || d.at_ns > d.wanted_ns) {
		if (edt_may_pass(state, flow, small, cost_ns, d.now_ns)) {
			if (!fits)
				__sync_fetch_and_add(&state->t_last_ns, cost_ns);
			__sync_fetch_and_add(&state->bypass, 1);
			d.at_ns = d.wanted_ns;
		} else if (!fits) {
			__sync_fetch_and_add(&state->drop, 1);
			return TC_ACT_SHOT;
		} else {
			delay_ns = d.at_ns - d.now_ns;
			if (!edt_tell_sender(skb, state, cfg, small, delay_ns, d.now_ns)) {
				/* Those that have been charged meanwhile keep their times: a gap of one packet. */
				__sync_fetch_and_add(&state->t_last_ns, -cost_ns);
				__sync_fetch_and_add(&state->drop, 1);
				return TC_ACT_SHOT;
			}
			edt_set_departure(skb, d.at_ns);
		}
	} else {
		d.at_ns = d.wanted_ns;
	}
	if (flow)
		flow->last_ns = d.at_ns;
	edt_account(state, skb->wire_len, delay_ns);
	return TC_ACT_UNSPEC;
}

/* not_at: a limit that is kept at one of these places has been charged for this packet already. */
static __always_inline int edt_run(struct __sk_buff *skb, enum edt_dir dir, __u32 not_at)
{
	struct edt_flows *flows = NULL;
	struct edt_state *state;
	struct edt_addr addr;
	struct edt_cfg *cfg;
	__u32 id, bucket;

	if (!edt_pod_addr(skb, dir, &addr))
		return TC_ACT_UNSPEC;
	id = edt_id_of(&addr);
	if (!id)
		return TC_ACT_UNSPEC;
	bucket = id << EDT_DIR_BITS | dir;
	cfg = bpf_map_lookup_elem(&edt_cfg, &bucket);
	if (!cfg || !cfg->rate_bytes_per_sec || cfg->flags & not_at)
		return TC_ACT_UNSPEC;
	state = bpf_map_lookup_elem(&edt_state, &bucket);
	if (!state)
		return TC_ACT_UNSPEC;
	if (dir != EDT_GUARD) {
		bucket = id << 1 | dir;
		flows = bpf_map_lookup_elem(&edt_flows, &bucket);
	}
	return edt_limit(skb, state, cfg, flows);
}

SEC("tc")
int edt_pod_out(struct __sk_buff *skb)
{
	return edt_run(skb, EDT_EGRESS, 0);
}

SEC("tc")
int edt_pod_in(struct __sk_buff *skb)
{
	return edt_run(skb, EDT_INGRESS, 0);
}

SEC("tc")
int edt_nic_out(struct __sk_buff *skb)
{
	return edt_run(skb, EDT_EGRESS, EDT_AT_POD);
}

SEC("tc")
int edt_nic_guard(struct __sk_buff *skb)
{
	return edt_run(skb, EDT_GUARD, 0);
}

/* ifindex of the ifb that the packet has to pass on its way to the pod; 0: of none. */
static __always_inline __u32 edt_ifb_of(struct __sk_buff *skb)
{
	__u32 nic = skb->ifindex, id, *ifb, bucket;
	struct edt_addr addr;
	struct edt_cfg *cfg;

	/* What is tagged is for a VLAN device on top of this one, which has a hook of its own. */
	if (skb->vlan_present || !edt_pod_addr(skb, EDT_INGRESS, &addr))
		return 0;
	id = edt_id_of(&addr);
	if (!id)
		return 0;
	bucket = id << EDT_DIR_BITS | EDT_INGRESS;
	cfg = bpf_map_lookup_elem(&edt_cfg, &bucket);
	if (!cfg || !(cfg->flags & EDT_AT_IFB))
		return 0;
	ifb = bpf_map_lookup_elem(&edt_ifbs, &nic);
	return ifb ? *ifb : 0;
}

SEC("tc")
int edt_to_ifb(struct __sk_buff *skb)
{
	__u32 ifb = edt_ifb_of(skb);

	return ifb ? bpf_redirect(ifb, 0) : TC_ACT_UNSPEC;
}

/*
 * The same for a filter without direct-action, which has a mirred action: below Linux 6.3 an ifb drops what
 * bpf_redirect() sends it, since __bpf_tx_skb() did not mark it as redirected. 0: no match, -1: match.
 */
SEC("tc")
int edt_is_for_ifb(struct __sk_buff *skb)
{
	return edt_ifb_of(skb) ? -1 : 0;
}
