# SPDX-License-Identifier: Apache-2.0
"""The CNI protocol and the little rtnetlink that plugins need. Imports the standard library only."""
