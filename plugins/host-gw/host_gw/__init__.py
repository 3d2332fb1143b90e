# SPDX-License-Identifier: Apache-2.0
"""bypath-host-gw: veth pods that reach everything by plain routes."""
