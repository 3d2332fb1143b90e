# SPDX-License-Identifier: Apache-2.0
"""`bypath`: what an operator asks and tells the plugins of a node. Not on any hot path; click does the talking."""
