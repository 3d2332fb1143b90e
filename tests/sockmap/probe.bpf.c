// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * As little as shows whether a kernel's sockmap is fit, and nothing of ours: were bypath's programs asked, a fault of
 * theirs would look like a kernel that lacks something, and the tests that would find it would not run.
 *
 * The client and the server of one network namespace; what the client sends goes into the server's queue, unless
 * `by_tcp` says otherwise.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

enum {
	CLIENT,
	SERVER,
	ENDS
};

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, ENDS);
	__type(key, __u32);
	__type(value, __u64);
} socks SEC(".maps");

/* The namespace's cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} netns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} by_tcp SEC(".maps");

SEC("sockops")
int sm_ops(struct bpf_sock_ops *ops)
{
	__u32 first = 0, end = ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB ? CLIENT : SERVER;
	__u64 *wanted = bpf_map_lookup_elem(&netns, &first);

	if (ops->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	if (wanted && *wanted == bpf_get_netns_cookie(ops))
		bpf_sock_hash_update(ops, &socks, &end, BPF_ANY);
	return 1;
}

SEC("sk_msg")
int sm_msg(struct sk_msg_md *msg)
{
	__u32 first = 0, server = SERVER, *passes = bpf_map_lookup_elem(&by_tcp, &first);

	return passes && *passes ? SK_PASS : bpf_msg_redirect_hash(msg, &socks, &server, BPF_F_INGRESS);
}

SEC("sk_skb")
int sm_skb(struct __sk_buff *skb __attribute__((unused)))
{
	return SK_PASS;
}
