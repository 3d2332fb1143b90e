# SPDX-License-Identifier: Apache-2.0
"""Machines made of namespaces: nodes, the network between them, CNI calls and what these leave behind."""
