// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * bypath-bandwidth-edt: a pod's rate as an earliest departure time for each packet, which fq below then keeps.
 *
 *   pod's socket --> eth0 [edt_pod_out: tstamp, CE, drop] --> fq on eth0 --> wire, master or host
 *   host --> pod's veth on the host [edt_pod_in: the same by destination] --> fq on that veth --> pod
 *
 * Hook: egress of the pod's own eth0, and of its veth on the host; TCX link or clsact filter; fq is the root qdisc.
 * Verdicts: TC_ACT_UNSPEC, or TC_ACT_SHOT for what would wait beyond the horizon. That comes before the charge: a
 * bucket that pays for packets nobody sends is slower than its rate.
 * Maps: edt_maps.h. A source address without an id, or an id without limits, passes untouched.
 */
#include "vmlinux.h"
#include "packet.h"
#include "edt_maps.h"

#define NSEC_PER_SEC 1000000000ULL
#define EDT_TRIES 4

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
	__builtin_memset(addr, 0, sizeof(*addr));
	if (link.proto_be == bpf_htons(ETH_P_IP)) {
		ip = packet_bytes(skb, link.net_off, sizeof(*ip));
		if (!ip)
			return false;
		addr->ip[10] = addr->ip[11] = 0xff;
		__builtin_memcpy(&addr->ip[12], dir == EDT_EGRESS ? &ip->saddr : &ip->daddr, sizeof(ip->saddr));
		return true;
	}
	if (link.proto_be != bpf_htons(ETH_P_IPV6))
		return false;
	ip6 = packet_bytes(skb, link.net_off, sizeof(*ip6));
	if (!ip6)
		return false;
	__builtin_memcpy(addr->ip, dir == EDT_EGRESS ? &ip6->saddr : &ip6->daddr, sizeof(ip6->saddr));
	return true;
}

static __always_inline struct edt_state *edt_state_of(const struct edt_bucket *key)
{
	struct edt_state *state = bpf_map_lookup_elem(&edt_state, key);
	struct edt_state fresh = {};

	if (state)
		return state;
	bpf_map_update_elem(&edt_state, key, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&edt_state, key);
}

static __always_inline struct edt_stats *edt_stats_of(const struct edt_bucket *key)
{
	struct edt_stats *stats = bpf_map_lookup_elem(&edt_stats, key);
	static const struct edt_stats fresh;

	if (stats)
		return stats;
	bpf_map_update_elem(&edt_stats, key, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&edt_stats, key);
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

static __always_inline void edt_account(struct edt_stats *stats, __u32 len, __u64 delay_ns, bool ce)
{
	__u32 bucket = edt_hist_bucket(delay_ns);

	stats->pkts++;
	stats->bytes += len;
	stats->delayed += delay_ns != 0;
	stats->ce += ce;
	if (delay_ns > stats->max_delay_ns)
		stats->max_delay_ns = delay_ns;
	if (bucket < EDT_HIST_BUCKETS)
		stats->hist[bucket]++;
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

static __always_inline int edt_limit(struct __sk_buff *skb, const struct edt_bucket *key, const struct edt_cfg *cfg)
{
	struct edt_departure d = {.now_ns = bpf_ktime_get_ns(), .wanted_ns = skb->tstamp};
	struct edt_state *state = edt_state_of(key);
	struct edt_stats *stats = edt_stats_of(key);
	__u64 delay_ns = 0;
	bool ce = false;

	if (!state)
		return TC_ACT_UNSPEC;
	if (d.wanted_ns < d.now_ns)
		d.wanted_ns = d.now_ns;
	if (!edt_charge(state, cfg, skb->wire_len * NSEC_PER_SEC / cfg->rate_bytes_per_sec, &d)) {
		if (stats)
			stats->drop++;
		return TC_ACT_SHOT;
	}
	if (d.at_ns > d.wanted_ns) {
		delay_ns = d.at_ns - d.now_ns;
		ce = cfg->ecn_ns && delay_ns > cfg->ecn_ns && bpf_skb_ecn_set_ce(skb) == 1;
		edt_set_departure(skb, d.at_ns);
	}
	if (stats)
		edt_account(stats, skb->wire_len, delay_ns, ce);
	return TC_ACT_UNSPEC;
}

static __always_inline int edt_run(struct __sk_buff *skb, enum edt_dir dir)
{
	struct edt_bucket key = {.dir = dir};
	struct edt_addr addr;
	struct edt_cfg *cfg;
	__u32 *id;

	if (!edt_pod_addr(skb, dir, &addr))
		return TC_ACT_UNSPEC;
	id = bpf_map_lookup_elem(&ip2id, &addr);
	if (!id)
		return TC_ACT_UNSPEC;
	key.id = *id;
	cfg = bpf_map_lookup_elem(&edt_cfg, &key);
	if (!cfg || !cfg->rate_bytes_per_sec)
		return TC_ACT_UNSPEC;
	return edt_limit(skb, &key, cfg);
}

SEC("tc")
int edt_pod_out(struct __sk_buff *skb)
{
	return edt_run(skb, EDT_EGRESS);
}

SEC("tc")
int edt_pod_in(struct __sk_buff *skb)
{
	return edt_run(skb, EDT_INGRESS);
}
