# SPDX-License-Identifier: Apache-2.0
"""The BPF programs alone: a packet in, and its verdict, the whole packet out and the maps' change compared."""
