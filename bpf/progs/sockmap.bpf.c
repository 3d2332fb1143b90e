// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * bypath-sockmap: what one socket of a node sends to another is put into the other's receive queue, past TCP and IP.
 *
 *   send() --> [sm_msg: the peer has read all that went by TCP, and has room] --> peer's queue --> recv()
 *                  `-- else --> TCP, IP, veth or lo --> [sm_skb: once each] --> peer's queue --> recv()
 *
 *   handshake: SYN [sm_ops: sm_announce] SYN-ACK [sm_ops: sm_join] ACK [sm_ops: sm_join]
 *
 * Hooks: sm_ops is sock_ops on the root cgroup, sm_pod_ops the same on the cgroups of pods that have one of their own;
 * sm_msg and sm_skb are the verdict programs of the sockhash `socks`.
 * Verdicts: sm_ops and sm_pod_ops 1, always; sm_msg SK_PASS, which the kernel takes as a redirection after a successful
 * bpf_msg_redirect_hash(); sm_skb SK_PASS: with a program at that hook what comes by TCP is put into the queue of
 * what was redirected, of which FIONREAD tells; without it FIONREAD is 0 for bytes of TCP. SK_DROP from a segment on
 * that there was no memory for to cut from it what came before; the kernel has no way to have it sent again.
 * Maps: sockmap_maps.h. Only sockets of network namespaces in `pods` are touched.
 */
#include "vmlinux.h"
#include "sockmap_kernel.h"
#include "sockmap_maps.h"
#include "sockmap_pair.h"
#include "sockmap_flow.h"
#include "sockmap_segment.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline void sm_see(struct bpf_sock_ops *ops, bool at_root)
{
	struct bpf_sock_ops_kern *kernel = (struct bpf_sock_ops_kern *)ops;
	__u32 op = ops->op, is_fullsock = ops->is_fullsock;
	struct sm_policy *policy;
	struct sock *sk;
	__u64 cookie;

	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB || op == BPF_SOCK_OPS_TCP_LISTEN_CB) {
		sm_leave(ops);
		return;
	}
	if (op != BPF_SOCK_OPS_RWND_INIT && op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB &&
	    op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return;
	/* A client chooses its window too. */
	if (op == BPF_SOCK_OPS_RWND_INIT && is_fullsock)
		return;
	cookie = bpf_get_netns_cookie(ops);
	policy = bpf_map_lookup_elem(&pods, &cookie);
	/* A pod with a cgroup of its own is below the root, too: one of the two programs is for it. */
	if (!policy || at_root == !!policy->cgroup_id)
		return;
	sk = BPF_CORE_READ(kernel, sk);
	if (op == BPF_SOCK_OPS_RWND_INIT)
		sm_announce((struct tcp_request_sock *)sk, policy, cookie);
	else if (op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		sm_join(ops, (struct tcp_sock *)sk, SM_ACTIVE, policy, cookie);
	else
		sm_join(ops, (struct tcp_sock *)sk, SM_PASSIVE, policy, cookie);
}

SEC("sockops")
int sm_ops(struct bpf_sock_ops *ops)
{
	sm_see(ops, true);
	return 1;
}

SEC("sockops")
int sm_pod_ops(struct bpf_sock_ops *ops)
{
	sm_see(ops, false);
	return 1;
}

SEC("sk_msg")
int sm_msg(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	__u32 size = msg->size;
	struct sm_counters *count;
	struct tcp_sock *tp;
	struct sm_sock *own;
	__u16 before;

	if (!sk)
		return SK_PASS;
	own = bpf_sk_storage_get(&state, sk, NULL, 0);
	tp = SM_CAN_PEEK ? SM_PEEK(struct tcp_sock, sk) : bpf_skc_to_tcp_sock(sk);
	if (!own || !tp)
		return SK_PASS;
	before = own->route;
	count = bpf_map_lookup_elem(&counters, &own->netns_cookie);
	if (!count) {
		/* The pod is gone for us; what it has open goes by TCP from here on. */
		own->route = SM_TCP_FOR_GOOD;
		return SK_PASS;
	}
	if (!sm_may_redirect(own, tp, size)) {
		sm_went_by_tcp(own, count, before, size);
	} else if (bpf_msg_redirect_hash(msg, &socks, &own->peer, BPF_F_INGRESS) != SK_PASS) {
		/* The peer has left the map: it is closed. */
		own->route = SM_TCP_FOR_GOOD;
		sm_went_by_tcp(own, count, before, size);
	} else {
		sm_was_redirected(own, count, size);
	}
	return SK_PASS;
}

SEC("sk_skb")
int sm_skb(struct __sk_buff *skb)
{
	return sm_begins_where_the_last_ended(skb) ? SK_PASS : SK_DROP;
}
