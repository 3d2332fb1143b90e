// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Which flows are sparse: a request among bulk need not wait behind what the bulk has queued.
 *
 * A sparse flow has nothing waiting and uses less than 1/EDT_FLOW_SHARE of the rate. Its packets leave at once, all
 * sparse flows together within 1/EDT_SPARSE_SHARE of the rate, and are charged like all others: whoever hurries takes
 * the time from those that wait. A flow's packets never overtake each other, since one whose last packet still waits
 * is not sparse.
 *
 * A bucket remembers EDT_FLOW_SETS * EDT_FLOW_WAYS flows by their hash. An entry whose clocks have both passed says
 * nothing that a new one would not, so it is free to be taken. A flow that finds none waits like bulk.
 */
#ifndef BYPATH_EDT_FLOW_H
#define BYPATH_EDT_FLOW_H

#include "vmlinux.h"
#include "edt_maps.h"

#define EDT_FLOW_SHARE 8
#define EDT_FLOW_BURST_NS 32000000ULL /* of the flow's clock: 4 ms of the rate at once */
#define EDT_SPARSE_SHARE 4
#define EDT_SPARSE_BURST_NS 32000000ULL

static __always_inline struct edt_flow *edt_flow_of(struct edt_flows *flows, __u32 hash, __u64 now_ns)
{
	struct edt_flow *first = &flows->flow[hash % EDT_FLOW_SETS * EDT_FLOW_WAYS];
	struct edt_flow *free = NULL;

#pragma unroll
	for (int way = 0; way < EDT_FLOW_WAYS; way++) {
		struct edt_flow *flow = first + way;

		if (flow->tag == hash)
			return flow;
		if (flow->last_ns <= now_ns && flow->share_ns <= now_ns)
			free = flow;
	}
	/* Two flows that want one entry at once: only one of them may believe that it has nothing waiting. */
	if (free) {
		__u32 old = free->tag;

		if (__sync_val_compare_and_swap(&free->tag, old, hash) == old)
			return free;
	}
	return NULL;
}

/* Charges the flow's clock, and says whether the packet fits into its share. The clock never runs further ahead than
 * its burst: a flow that stops being bulk is sparse again soon. */
static __always_inline bool edt_flow_is_small(struct edt_flow *flow, __u64 cost_ns, __u64 now_ns)
{
	__u64 share_ns = flow->share_ns + EDT_FLOW_BURST_NS > now_ns ? flow->share_ns : now_ns - EDT_FLOW_BURST_NS;
	bool small;

	share_ns += cost_ns * EDT_FLOW_SHARE;
	small = share_ns <= now_ns;
	flow->share_ns = share_ns < now_ns + EDT_FLOW_BURST_NS ? share_ns : now_ns + EDT_FLOW_BURST_NS;
	return small;
}

/* Takes cost_ns of what all sparse flows may have together. */
static __always_inline bool edt_sparse_fits(struct edt_state *state, __u64 cost_ns, __u64 now_ns)
{
	__u64 last_ns = *(volatile __u64 *)&state->t_sparse_ns;
	__u64 next_ns = last_ns + EDT_SPARSE_BURST_NS > now_ns ? last_ns : now_ns - EDT_SPARSE_BURST_NS;

	next_ns += cost_ns * EDT_SPARSE_SHARE;
	return next_ns <= now_ns && __sync_val_compare_and_swap(&state->t_sparse_ns, last_ns, next_ns) == last_ns;
}

#endif
