# SPDX-License-Identifier: Apache-2.0
"""`make demo`: two nodes with pods, shown to a person step by step."""
