// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Structs and counters that bypath-snat's programs share with its Python (plugins/snat/snat/layout.py). */
#ifndef BYPATH_SNAT_H
#define BYPATH_SNAT_H

#include "vmlinux.h"

struct snat_pod {
	__u32 network_id;
	__u32 host_ifindex; /* the pod's host-side veth; 0: none (ipvlan) */
	__u64 attachment;
};
_Static_assert(sizeof(struct snat_pod) == 16, "mirrored in Python");

struct snat_network {
	__u16 port_first;
	__u16 port_last; /* inclusive */
	__u32 flags;	 /* for user space only */
	__u64 config_hash;
};
_Static_assert(sizeof(struct snat_network) == 16, "mirrored in Python");

struct snat_nomasq {
	__u32 prefixlen; /* 32 bits of network_id, then the CIDR's */
	__u32 network_id;
	__be32 addr_be;
};
_Static_assert(sizeof(struct snat_nomasq) == 12, "mirrored in Python");

struct snat_uplink {
	__be32 addr_be;
};
_Static_assert(sizeof(struct snat_uplink) == 4, "mirrored in Python");

/* A flow as one side of a hook sees it. ICMP echo: the identifier in the requester's port, 0 in the other. */
struct snat_tuple {
	__be32 src_be;
	__be32 dst_be;
	__be16 sport_be;
	__be16 dport_be;
	__u8 proto;
	__u8 pad[3];
};
_Static_assert(sizeof(struct snat_tuple) == 16, "mirrored in Python");

/* fwd: {pod, remote} -> what the pod is translated to */
struct snat_session {
	__be32 nat_addr_be;
	__be16 nat_port_be;
	__u16 pad;
	__u32 network_id;
};
_Static_assert(sizeof(struct snat_session) == 12, "mirrored in Python");

/* rev: {remote, translated} -> the pod. The first eight bytes are read and exchanged as one word. */
struct snat_owner {
	__be32 pod_addr_be;
	__be16 pod_port_be;
	__u16 state;
	__u64 last_seen_ns;
};
_Static_assert(sizeof(struct snat_owner) == 16, "mirrored in Python");
_Static_assert(__builtin_offsetof(struct snat_owner, last_seen_ns) == 8, "owner and state are one word");

enum snat_state {
	SNAT_REPLIED = 1, /* the remote has answered */
	SNAT_ASSURED = 2, /* UDP: the pod went on after an answer */
	SNAT_FIN_OUT = 4, /* TCP: the pod has closed */
	SNAT_FIN_IN = 8,  /* TCP: the remote has closed */
	SNAT_RESET = 16,  /* TCP: either has reset */
};

struct snat_frag_key {
	__be32 src_be;
	__be32 dst_be;
	__be16 id_be;
	__u8 proto;
	__u8 hook;
};
_Static_assert(sizeof(struct snat_frag_key) == 12, "mirrored in Python");

/* What was done to a datagram's first fragment, for the others to follow. */
struct snat_frag {
	__be32 addr_be; /* 0: left alone; pod_in: any other value: marked */
	__u32 pad;
	__u64 seen_ns;
};
_Static_assert(sizeof(struct snat_frag) == 16, "mirrored in Python");

enum snat_hook {
	SNAT_HOOK_NIC_OUT,
	SNAT_HOOK_NIC_IN,
	SNAT_HOOK_POD_IN,
};

struct snat_stackflow {
	__u64 first_seen_ns;
};
_Static_assert(sizeof(struct snat_stackflow) == 8, "mirrored in Python");

enum snat_stat {
	SNAT_TRANSLATED_OUT,
	SNAT_TRANSLATED_IN,
	SNAT_SESSION_NEW,
	SNAT_PORT_KEPT,	   /* of the new sessions: with the pod's own source port */
	SNAT_PORT_RETRY,   /* candidate ports found taken */
	SNAT_PORT_LOCAL,   /* candidate ports skipped for a socket of the node */
	SNAT_TAKEN_IDLE,   /* ports taken over from a session past its timeout */
	SNAT_TAKEN_CLOSED, /* ... from one closed for 60 s or more */
	SNAT_TAKEN_EARLY,  /* ... from one closed for less: the range is too small */
	SNAT_HEALED_REV,   /* reverse entries re-created */
	SNAT_HEALED_FWD,   /* forward entries re-created over a reverse entry of the same owner */
	SNAT_ICMP_OUT,	   /* ICMP errors translated */
	SNAT_ICMP_IN,
	SNAT_FRAG_OUT, /* later fragments translated */
	SNAT_FRAG_IN,
	SNAT_BYPASS,	     /* packets from pods kept out of conntrack */
	SNAT_STACKFLOW_NEW,  /* flows towards a pod seen to come through the stack */
	SNAT_SKIP_NETWORK,   /* pod of a network without settings */
	SNAT_SKIP_UPLINK,    /* NIC without an address of ours */
	SNAT_SKIP_REPLY,     /* a pod's reply to a connection that reached it directly */
	SNAT_SKIP_PROTO,     /* neither TCP, UDP, ICMP echo nor a known ICMP error */
	SNAT_SKIP_ICMP,	     /* ICMP error about no session */
	SNAT_SKIP_TRUNCATED, /* IPv4 headers cut short */
	SNAT_DROP_PORTS,     /* no candidate port could be had */
	SNAT_DROP_FRAGMENT,  /* later fragment before its first: would leak the pod's address */
	SNAT_DROP_REWRITE,   /* the kernel could not make the packet writable */
	SNAT_STATS,
};

#endif
