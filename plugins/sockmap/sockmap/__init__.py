# SPDX-License-Identifier: Apache-2.0
"""bypath-sockmap: TCP between a pod's containers, and between pods of a node, from socket to socket."""
