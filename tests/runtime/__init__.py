# SPDX-License-Identifier: Apache-2.0
"""A real containerd in a node of the laboratory, driven by the CRI as kubelet drives it."""
