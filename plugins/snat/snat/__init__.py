# SPDX-License-Identifier: Apache-2.0
"""bypath-snat: masquerading in tc BPF, out of nf_conntrack's sight."""
