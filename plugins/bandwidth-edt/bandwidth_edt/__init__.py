# SPDX-License-Identifier: Apache-2.0
"""bypath-bandwidth-edt: pod bandwidth limits by earliest departure time and fq."""
