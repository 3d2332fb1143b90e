// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * What bypath-sockmap reads of the kernel's own socket types. They are not UAPI: every access is relocated against the
 * running kernel, so only the names of the fields matter here, and not what else there is or in which order.
 */
#ifndef BYPATH_SOCKMAP_KERNEL_H
#define BYPATH_SOCKMAP_KERNEL_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	__u32 val;
} kuid_t;

struct in6_addr {
	__u8 bytes[16];
};

struct list_head {
	struct list_head *next;
};

struct proto {
	__s64 *memory_allocated; /* of all sockets of the protocol, in pages */
	__s64 *sysctl_mem;	 /* three thresholds for that */
};

struct sock;

/* An AF_INET6 socket with an IPv4 peer has both addresses in their v4-mapped form in skc_v6_*. */
struct sock_common {
	__u16 skc_family;
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num; /* the local port, host byte order */
	unsigned long skc_flags;
	struct sock *skc_listener; /* of a request */
	struct proto *skc_prot;
};

struct sock {
	struct sock_common __sk_common;
	kuid_t sk_uid;
	int sk_rcvlowat;
	void *sk_user_data;
};

struct inet_sock {
	struct sock sk;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	void *icsk_ulp_ops;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 rcv_nxt;
	__u32 snd_nxt;
	__u32 write_seq;  /* behind the last byte that was handed to TCP; what is redirected does not move it */
	__u32 copied_seq; /* behind the last byte that the application has read from TCP */
	__u8 syn_data : 1;
	__u8 syn_fastopen : 1;
	__u8 repair : 1;
	bool is_mptcp;
};

/* A connection that came and is not yet established. */
struct request_sock {
	struct sock_common __req_common;
};

struct inet_request_sock {
	struct request_sock req;
};

struct tcp_request_sock {
	struct inet_request_sock req;
	__u32 rcv_isn;
	__u32 snt_isn;
};

struct sk_psock {
	struct list_head ingress_msg;
	__u32 msg_tot_len; /* bytes in it; came together with a copied_seq that leaves redirected bytes out */
};

/* What TCP writes into skb->cb of what it has received. */
struct tcp_skb_cb {
	__u32 seq;
	__u32 end_seq; /* behind the last byte, and behind a FIN, which counts as one */
};

struct sk_buff {
	char cb[48];
};

struct bpf_sock_ops_kern {
	struct sock *sk;
};

#pragma clang attribute pop

/* Since 6.2. The verifier makes a plain load of it where bpf_probe_read_kernel() is a call, and calls are most of what
 * sm_msg takes on a processor that guards every return (spec_rstack_overflow). */
extern void *bpf_rdonly_cast(void *obj, __u32 btf_id) __ksym __weak;

/* A pointer whose fields read 0 where no memory is. Only behind SM_CAN_PEEK. */
#define SM_CAN_PEEK (bpf_rdonly_cast != NULL)
#define SM_PEEK(type, address) ((type *)bpf_rdonly_cast((void *)(address), bpf_core_type_id_kernel(type)))

/* A field of what may be freed by now. The address is taken outside of BPF_CORE_READ(), which would relocate the way to
 * it, too. */
#define SM_READ(type, address, field)                                                                                  \
	({                                                                                                             \
		type *at = (type *)(address);                                                                          \
		SM_CAN_PEEK ? SM_PEEK(type, at)->field : BPF_CORE_READ(at, field);                                     \
	})

enum sock_flags {
	SOCK_KEEPOPEN = 7,
	SOCK_ZEROCOPY = 18,
};

#define SK_FLAG(name) (1UL << bpf_core_enum_value(enum sock_flags, name))

/* sk_user_data says in its lowest bits what it points to (include/net/sock.h). */
#define SK_USER_DATA_BITS 7UL

#endif
