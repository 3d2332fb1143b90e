// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Which sockets belong together, and whether their pods want them to meet.
 *
 *   server's pod: a SYN came, the answer's sequence number is known [sm_announce: hints]
 *   client's pod: the SYN-ACK came, the connection is established   [sm_join: needs the hint, socks, half]
 *   server's pod: the ACK came                                      [sm_join: needs the client's half, socks, half]
 *
 * So a socket enters the map only when its peer is of this node, both pods allow it, and the peer is there or about to
 * come: being in the map alone changes how a socket behaves. Whatever else differs between what both ends see of the
 * connection (REDIRECT, DNAT), the client's address and both initial sequence numbers are the same.
 */
#ifndef BYPATH_SOCKMAP_PAIR_H
#define BYPATH_SOCKMAP_PAIR_H

#include <bpf/bpf_endian.h>
#include "sockmap_kernel.h"
#include "sockmap_maps.h"

/* As its own side sees the connection. Ports in host byte order. */
struct sm_ends {
	struct sm_addr local;
	struct sm_addr remote;
	__u16 local_port;
	__u16 remote_port;
};

static __always_inline void sm_map_ipv4(struct sm_addr *addr, __be32 ip_be)
{
	__builtin_memset(addr->ip, 0, 10);
	addr->ip[10] = addr->ip[11] = 0xff;
	__builtin_memcpy(&addr->ip[12], &ip_be, sizeof(ip_be));
}

static __always_inline bool sm_read_ends(struct sock_common *sk, struct sm_ends *ends)
{
	__u16 family = BPF_CORE_READ(sk, skc_family);

	ends->local_port = BPF_CORE_READ(sk, skc_num);
	ends->remote_port = bpf_ntohs(BPF_CORE_READ(sk, skc_dport));
	if (family == AF_INET) {
		sm_map_ipv4(&ends->local, BPF_CORE_READ(sk, skc_rcv_saddr));
		sm_map_ipv4(&ends->remote, BPF_CORE_READ(sk, skc_daddr));
		return true;
	}
	if (family != AF_INET6)
		return false;
	BPF_CORE_READ_INTO(&ends->local, sk, skc_v6_rcv_saddr);
	BPF_CORE_READ_INTO(&ends->remote, sk, skc_v6_daddr);
	return true;
}

/* 127.0.0.0/8 or ::1 */
static __always_inline bool sm_is_loopback(const struct sm_addr *addr)
{
	const __u32 *word = (const __u32 *)addr->ip;

	if (word[0] || word[1])
		return false;
	if (word[2] == bpf_htonl(0xffff))
		return addr->ip[12] == 127;
	return !word[2] && word[3] == bpf_htonl(1);
}

static __always_inline bool sm_excludes_port(const struct sm_policy *policy, const struct sm_ends *ends)
{
	for (int i = 0; i < SM_EXCLUDE_PORTS; i++) {
		__u16 port = policy->exclude_ports[i];

		if (!port)
			return false;
		if (port == ends->local_port || port == ends->remote_port)
			return true;
	}
	return false;
}

static __always_inline bool sm_excludes_uid(const struct sm_policy *policy, __u32 uid)
{
	for (__u32 i = 0; i < SM_EXCLUDE_UIDS; i++) {
		if (i >= policy->uid_count)
			return false;
		if (policy->exclude_uids[i] == uid)
			return true;
	}
	return false;
}

/*
 * Whether the pod's policy and the socket's own settings allow it. The listener stands for what it will accept: that
 * inherits its settings, and is nobody's own before accept() (sock_graft()).
 */
static __always_inline bool sm_is_fit(const struct sm_policy *policy, struct sock *sk)
{
	unsigned long flags = BPF_CORE_READ(sk, __sk_common.skc_flags);

	if (BPF_CORE_READ(sk, sk_rcvlowat) > 1 || flags & SK_FLAG(SOCK_ZEROCOPY))
		return false;
	return !policy->uid_count || !sm_excludes_uid(policy, BPF_CORE_READ(sk, sk_uid.val));
}

/* MPTCP moves data between connections, an upper protocol (TLS) changes it, Fast Open sends some before we know, and
 * a socket under repair has a past of its own. */
static __always_inline bool sm_is_plain_tcp(struct tcp_sock *tp)
{
	if (bpf_core_field_exists(tp->is_mptcp) && BPF_CORE_READ(tp, is_mptcp))
		return false;
	return !BPF_CORE_READ(tp, inet_conn.icsk_ulp_ops) && !BPF_CORE_READ_BITFIELD_PROBED(tp, syn_data) &&
	       !BPF_CORE_READ_BITFIELD_PROBED(tp, syn_fastopen) && !BPF_CORE_READ_BITFIELD_PROBED(tp, repair);
}

/* The key of the client's end, but for the sequence numbers. */
static __always_inline void sm_begin_key(struct sm_key *key, const struct sm_addr *client, __u16 port, __u64 cookie)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->client = *client;
	key->client_port_be = bpf_htons(port);
	key->side = SM_ACTIVE;
	if (sm_is_loopback(client))
		key->netns_cookie = cookie;
}

/* What the client's pod wants, that one says for itself, see below. */
static __always_inline bool sm_server_allows(const struct sm_policy *policy, __u64 cookie, const struct sm_key *key)
{
	__u64 *owner;

	if (key->netns_cookie)
		return policy->flags & SM_SIDECAR;
	owner = bpf_map_lookup_elem(&pod_ips, &key->client);
	return owner && policy->flags & (*owner == cookie ? SM_SIDECAR : SM_POD);
}

/* The hint says that the server allows it. */
static __always_inline bool sm_client_allows(const struct sm_policy *policy, __u64 cookie, const struct sm_key *key,
					     const struct sm_hint *hint)
{
	__u64 *owner;

	if (!key->netns_cookie) {
		owner = bpf_map_lookup_elem(&pod_ips, &key->client);
		if (!owner || *owner != cookie)
			return false;
	}
	return policy->flags & (hint->netns_cookie == cookie ? SM_SIDECAR : SM_POD);
}

/* In the server's pod: a SYN came, and the sequence number of its answer is chosen (tcp_conn_request()). */
static __always_inline void sm_announce(struct tcp_request_sock *request, const struct sm_policy *policy, __u64 cookie)
{
	struct sock *listener = BPF_CORE_READ(request, req.req.__req_common.skc_listener);
	struct sm_hint hint = {.netns_cookie = cookie};
	struct sm_ends ends;
	struct sm_key key;

	/* A request that is answered by a SYN cookie has no listener. */
	if (!listener || !sm_read_ends(&request->req.req.__req_common, &ends))
		return;
	if (sm_excludes_port(policy, &ends) || !sm_is_fit(policy, listener))
		return;
	sm_begin_key(&key, &ends.remote, ends.remote_port, cookie);
	if (!sm_server_allows(policy, cookie, &key))
		return;
	key.client_seq = BPF_CORE_READ(request, rcv_isn) + 1;
	key.server_seq = BPF_CORE_READ(request, snt_isn) + 1;
	bpf_map_update_elem(&hints, &key, &hint, BPF_ANY);
}

/* The client's key of an established connection; false: it stays plain. */
static __always_inline bool sm_find_key(struct tcp_sock *tp, enum sm_side side, const struct sm_policy *policy,
					__u64 cookie, struct sm_key *key)
{
	struct sock *sk = (struct sock *)tp;
	struct sm_ends ends;

	if (!sm_is_plain_tcp(tp) || !sm_is_fit(policy, sk) || !sm_read_ends(&sk->__sk_common, &ends))
		return false;
	if (sm_excludes_port(policy, &ends))
		return false;
	if (side == SM_ACTIVE) {
		sm_begin_key(key, &ends.local, ends.local_port, cookie);
		key->client_seq = BPF_CORE_READ(tp, snd_nxt);
		key->server_seq = BPF_CORE_READ(tp, rcv_nxt);
	} else {
		sm_begin_key(key, &ends.remote, ends.remote_port, cookie);
		key->client_seq = BPF_CORE_READ(tp, rcv_nxt);
		key->server_seq = BPF_CORE_READ(tp, snd_nxt);
	}
	return true;
}

/* Whether the other end is on its way, for the client, or there, for the server; then *peer_sock is its address. */
static __always_inline bool sm_is_awaited(enum sm_side side, const struct sm_policy *policy, __u64 cookie,
					  const struct sm_key *key, __u64 *peer_sock)
{
	struct sm_hint *hint;
	bool allowed;
	__u64 *met;

	if (side == SM_ACTIVE) {
		hint = bpf_map_lookup_elem(&hints, key);
		allowed = hint && sm_client_allows(policy, cookie, key, hint);
		bpf_map_delete_elem(&hints, key);
		return allowed;
	}
	met = bpf_map_lookup_elem(&half, key);
	if (!met)
		return false;
	*peer_sock = *met;
	bpf_map_delete_elem(&half, key);
	return true;
}

/*
 * A queue counts as receive memory, and a segment that finds the socket locked by a reader is dropped when there is
 * more of that than twice the receive buffer (tcp_add_backlog()). All but a reset are sent again; who only reads would
 * wait for ever for the end of a connection that was reset. Probes of an idle connection find that out. They are given
 * up only after twenty minutes, so that no network that fails for a while ends a connection that would have survived.
 */
static __always_inline void sm_probe_when_idle(struct bpf_sock_ops *ops, struct sock *sk)
{
	int on = 1, seconds = 10, count = 120;

	if (BPF_CORE_READ(sk, __sk_common.skc_flags) & SK_FLAG(SOCK_KEEPOPEN))
		return;
	bpf_setsockopt(ops, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof(seconds));
	bpf_setsockopt(ops, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof(seconds));
	bpf_setsockopt(ops, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	bpf_setsockopt(ops, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

/* An established connection's end enters the map, or stays plain. */
static __always_inline void sm_join(struct bpf_sock_ops *ops, struct tcp_sock *tp, enum sm_side side,
				    const struct sm_policy *policy, __u64 cookie)
{
	struct sm_counters *count = bpf_map_lookup_elem(&counters, &cookie);
	__u64 peer_sock = 0, own_sock = (__u64)tp;
	struct bpf_sock *sk = ops->sk;
	struct sm_sock *own;
	struct sm_key key;

	/* A cgroup above the pod's may be another pod's, and its program was here before. */
	if (!sk || !count || bpf_sk_storage_get(&state, sk, NULL, 0))
		return;
	if (!sm_find_key(tp, side, policy, cookie, &key) || !sm_is_awaited(side, policy, cookie, &key, &peer_sock)) {
		count->skipped++;
		return;
	}
	own = bpf_sk_storage_get(&state, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!own) {
		count->insert_fail++;
		return;
	}
	__builtin_memset(own, 0, sizeof(*own));
	own->peer = key;
	own->peer.side = !side;
	own->netns_cookie = cookie;
	own->peer_sock = peer_sock;
	own->limit_bytes = policy->limit_bytes;
	own->read_seq = BPF_CORE_READ(tp, write_seq);
	key.side = side;
	if (bpf_sock_hash_update(ops, &socks, &key, BPF_NOEXIST)) {
		bpf_sk_storage_delete(&state, sk);
		count->insert_fail++;
		return;
	}
	bpf_map_update_elem(&half, &key, &own_sock, BPF_ANY);
	sm_probe_when_idle(ops, (struct sock *)tp);
	count->paired++;
}

/*
 * A socket that was connected before, and then dissolved that (connect() to AF_UNSPEC), begins anew. tcp_disconnect()
 * does not empty the queue of what was redirected: the next connection would read it. Outside of the map there is none.
 * The next one's sequence numbers have nothing to do with what came before, either.
 */
static __always_inline void sm_leave(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct sm_sock *own;
	struct sm_key key;
	__u64 cookie;

	if (!sk)
		return;
	own = bpf_sk_storage_get(&state, sk, NULL, 0);
	if (!own)
		return;
	key = own->peer;
	key.side = !key.side;
	cookie = bpf_get_socket_cookie(ops);
	bpf_map_delete_elem(&socks, &key);
	bpf_map_delete_elem(&seen_seq, &cookie);
	bpf_sk_storage_delete(&state, sk);
}

#endif
