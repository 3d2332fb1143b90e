// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * What others do, for the tests alone: sockets are paired by the client's address and port. A port that is used towards
 * several servers at once then names several connections, of which the last one gets the bytes of all. The load has to
 * see that, or it would not see ours either. Like ours it redirects nothing behind what went by TCP, and finds out lost
 * resets, so the key alone is at fault: with a port of its own for each connection nothing goes wrong.
 *
 * Hooks, maps and the rest are those of bypath-sockmap.
 */
#include "vmlinux.h"
#include "sockmap_kernel.h"
#include "sockmap_maps.h"
#include "sockmap_pair.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("sockops")
int sm_ops(struct bpf_sock_ops *ops)
{
	struct bpf_sock_ops_kern *kernel = (struct bpf_sock_ops_kern *)ops;
	bool active = ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB;
	__u64 cookie = bpf_get_netns_cookie(ops);
	struct sm_counters *count = bpf_map_lookup_elem(&counters, &cookie);
	struct bpf_sock *sk = ops->sk;
	struct sm_ends ends;
	struct sm_sock *own;
	struct sock *socket;
	struct sm_key key;

	if (!active && ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	socket = BPF_CORE_READ(kernel, sk);
	if (!count || !sk || !sm_read_ends(&socket->__sk_common, &ends))
		return 1;
	own = bpf_sk_storage_get(&state, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!own)
		return 1;
	if (active)
		sm_begin_key(&key, &ends.local, ends.local_port, cookie);
	else
		sm_begin_key(&key, &ends.remote, ends.remote_port, cookie);
	own->peer = key;
	own->peer.side = active ? SM_PASSIVE : SM_ACTIVE;
	own->netns_cookie = cookie;
	own->read_seq = BPF_CORE_READ((struct tcp_sock *)socket, write_seq);
	key.side = active ? SM_ACTIVE : SM_PASSIVE;
	if (!bpf_sock_hash_update(ops, &socks, &key, BPF_ANY))
		count->paired++;
	sm_probe_when_idle(ops, socket);
	return 1;
}

SEC("sk_msg")
int sm_msg(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct sm_counters *count;
	struct tcp_sock *tp;
	struct sm_sock *own;

	if (!sk)
		return SK_PASS;
	own = bpf_sk_storage_get(&state, sk, NULL, 0);
	tp = bpf_skc_to_tcp_sock(sk);
	if (!own || !tp)
		return SK_PASS;
	count = bpf_map_lookup_elem(&counters, &own->netns_cookie);
	if (!count || own->route == SM_TCP_FOR_GOOD)
		return SK_PASS;
	if (tp->write_seq == own->read_seq && bpf_msg_redirect_hash(msg, &socks, &own->peer, BPF_F_INGRESS) == SK_PASS)
		count->redirected_msgs++;
	else
		own->route = SM_TCP_FOR_GOOD;
	return SK_PASS;
}

SEC("sk_skb")
int sm_skb(struct __sk_buff *skb __attribute__((unused)))
{
	return SK_PASS;
}
