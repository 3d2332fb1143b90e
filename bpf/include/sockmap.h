// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Structs and numbers that bypath-sockmap's programs share with its Python, plugins/sockmap/sockmap/layout.py.
 *
 *   map       key                           value               written by
 *   pods      u64 netns cookie              sm_policy           user space
 *   pod_ips   sm_addr                       u64 netns cookie    user space
 *   node      u32 0                         sm_node             user space
 *   counters  u64 netns cookie              sm_counters a CPU   the programs; user space makes and removes the element
 *   socks     sm_key                        a socket            sm_ops; elements go with their sockets
 *   hints     sm_key of SM_ACTIVE           sm_hint             sm_ops, LRU
 *   half      sm_key of SM_ACTIVE           u64                 sm_ops, LRU
 *   seen_seq  u64 socket cookie             sm_seen             sm_skb, LRU
 *   state     a socket                      sm_sock             the programs
 *
 * Programs: sm_ops and sm_pod_ops (sock_ops, root cgroup and pods' own), sm_msg (sk_msg verdict) and sm_skb (sk_skb
 * verdict), both on `socks`. The order for a pod that comes: counters, pod_ips, pods. One that goes: pods, pod_ips,
 * counters.
 */
#ifndef BYPATH_SOCKMAP_H
#define BYPATH_SOCKMAP_H

#include "vmlinux.h"

#define SM_PODS 4096
#define SM_POD_IPS 16384
#define SM_SOCKETS 65536
#define SM_EXCLUDE_PORTS 32
#define SM_EXCLUDE_UIDS 16

/* Bits of sm_policy's flags: which connections of the pod may bypass TCP. */
enum sm_scope {
	SM_SIDECAR = 1, /* both ends in the pod's own network namespace */
	SM_POD = 2,	/* the other end in another pod of the node, whose policy must say so too */
};

/* A pod without a policy takes no part. A change is for new connections only. */
struct sm_policy {
	__u32 flags; /* enum sm_scope bits */
	/* Unread bytes in one direction of one connection, above which it goes by TCP. */
	__u32 limit_bytes;
	/* Host byte order; the first 0 ends them. Of either end, as this pod sees them. */
	__u16 exclude_ports[SM_EXCLUDE_PORTS];
	/* Owners of this pod's sockets, in the initial user namespace. */
	__u32 exclude_uids[SM_EXCLUDE_UIDS];
	__u32 uid_count;
	/* Lower half of the id of the cgroup where sm_pod_ops sees the pod's sockets; 0: sm_ops does, at the root. */
	__u32 cgroup_id;
	__u64 attachment; /* the pod's, for user space alone: it finds the cookie when the netns is gone */
};
_Static_assert(sizeof(struct sm_policy) == 152, "mirrored in Python");

struct sm_addr {
	__u8 ip[16]; /* IPv4 as ::ffff:a.b.c.d */
};
_Static_assert(sizeof(struct sm_addr) == 16, "mirrored in Python");

/* Memory of all TCP sockets of the node, above which no direction queues more than a TCP window. */
struct sm_node {
	__u64 limit_bytes; /* 0: the first figure of net.ipv4.tcp_mem, in pages */
};
_Static_assert(sizeof(struct sm_node) == 8, "mirrored in Python");

/* Of the sockets of one pod; messages and bytes are those that they sent. */
struct sm_counters {
	__u64 paired;	   /* sockets put into `socks` */
	__u64 insert_fail; /* that could not be: the map is full, or no memory */
	__u64 redirected_msgs;
	__u64 redirected_bytes;
	__u64 passed_msgs; /* by TCP, of sockets in `socks` */
	__u64 passed_bytes;
	__u64 fallback_conns; /* directions that began by TCP */
	__u64 skipped; /* established sockets that stay plain: the peer is not of the node, or something forbids it */
	__u64 spills;  /* times that a direction went from redirection to TCP */
};
_Static_assert(sizeof(struct sm_counters) == 72, "mirrored in Python");

enum sm_side {
	SM_ACTIVE,  /* connected */
	SM_PASSIVE, /* was accepted */
};

/*
 * One end of one connection. The initial sequence numbers are the same on both ends whatever was done to addresses and
 * ports in between, and differ for each connection, so that a port used towards several servers is never confused.
 */
struct sm_key {
	__u64 netns_cookie; /* of both ends, for a client at a loopback address; 0 for one at a pod's address */
	struct sm_addr client;
	__u32 client_seq; /* initial sequence number + 1 */
	__u32 server_seq;
	__be16 client_port_be;
	__u8 side; /* enum sm_side */
	__u8 pad[5];
};
_Static_assert(sizeof(struct sm_key) == 40, "mirrored in Python");

#endif
