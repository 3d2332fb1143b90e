// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* bypath-sockmap's programs on a node that never has 4 KiB left to cut a segment, for the tests alone. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define bpf_skb_adjust_room(skb, bytes, mode, flags) ((void)(skb), -12) /* ENOMEM */
#include "../../bpf/progs/sockmap.bpf.c"
