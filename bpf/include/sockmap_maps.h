// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* All maps of bypath-sockmap, and what only its programs look at. */
#ifndef BYPATH_SOCKMAP_MAPS_H
#define BYPATH_SOCKMAP_MAPS_H

#include "build.h"
#include "sockmap.h"

/* A connection on its way to a socket of ours: written before the answer to its SYN leaves. */
struct sm_hint {
	__u64 netns_cookie; /* of the side that will accept it */
};

enum sm_route {
	SM_NEW, /* nothing sent so far */
	SM_REDIRECTING,
	SM_BY_TCP,
	SM_TCP_FOR_GOOD,
};

/* One socket of `socks`, and the direction in which it sends. Written by its own programs only, one at a time. */
struct sm_sock {
	struct sm_key peer;
	__u64 netns_cookie;
	/* The peer's address in the kernel, 0 until it has been heard of. It may be freed meanwhile: only what a
	 * following redirection by key confirms may depend on what is read there. */
	__u64 peer_sock;
	__u32 limit_bytes;
	__u32 read_seq;	    /* write_seq when the peer was last seen to have read all of it */
	__u32 queued_bytes; /* redirected since the peer's queue was last seen empty; where the kernel does not count */
	__u32 unasked_bytes; /* redirected since that, or since the node was last found to have room */
	__u16 route;	     /* enum sm_route */
	__u16 missed;	     /* messages sent while the peer was unheard of */
	__u32 pad;
};

/* What one socket of `socks` has had by TCP. */
struct sm_seen {
	__u32 end_seq; /* behind the last byte */
	/* A segment is missing that was acknowledged: nothing behind it may be read. Not redirected bytes either: the
	 * kernel counts what is dropped as read, old bytes and all, so copied_seq never is write_seq again. */
	__u32 torn;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SM_PODS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct sm_policy);
} pods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SM_POD_IPS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct sm_addr);
	__type(value, __u64);
} pod_ips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sm_node);
} node SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, SM_PODS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct sm_counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, SM_SOCKETS);
	__type(key, struct sm_key);
	__type(value, __u64);
} socks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SM_SOCKETS / 4);
	__type(key, struct sm_key);
	__type(value, struct sm_hint);
} hints SEC(".maps");

/* A socket that is in `socks` and has not been met by its peer: its address in the kernel. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SM_SOCKETS);
	__type(key, struct sm_key);
	__type(value, __u64);
} half SEC(".maps");

/* By socket cookie. Not in `state`, which programs at sm_skb's hook may not ask for. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SM_SOCKETS);
	__type(key, __u64);
	__type(value, struct sm_seen);
} seen_seq SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sm_sock);
} state SEC(".maps");

#endif
