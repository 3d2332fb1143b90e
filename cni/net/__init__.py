# SPDX-License-Identifier: Apache-2.0
"""rtnetlink, network namespaces and the sysctls that plugins read."""
