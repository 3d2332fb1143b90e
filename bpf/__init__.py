# SPDX-License-Identifier: Apache-2.0
"""Everything BPF: sources under progs/ and include/, and the Python that loads, pins and attaches them."""
