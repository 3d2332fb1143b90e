// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The one bit of skb->mark that the plugin's nft rule turns into notrack; the others are kube-proxy's and the user's.
 */
#ifndef BYPATH_SNAT_MARK_H
#define BYPATH_SNAT_MARK_H

#include "vmlinux.h"

const volatile __u32 notrack_mark = 0x00200000;

static __always_inline void snat_mark(struct __sk_buff *skb)
{
	skb->mark |= notrack_mark;
}

static __always_inline bool snat_is_marked(struct __sk_buff *skb)
{
	return skb->mark & notrack_mark;
}

static __always_inline void snat_unmark(struct __sk_buff *skb)
{
	if (snat_is_marked(skb))
		skb->mark &= ~notrack_mark;
}

#endif
