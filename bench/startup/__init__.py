# SPDX-License-Identifier: Apache-2.0
"""What an executable costs a pod: bypath's start and whole ADD beside the reference plugins' in one run."""
