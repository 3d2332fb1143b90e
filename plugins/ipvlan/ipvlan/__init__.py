# SPDX-License-Identifier: Apache-2.0
"""bypath-ipvlan: pods as ipvlan devices on the node's NIC."""
