# SPDX-License-Identifier: Apache-2.0
"""The one exception that leaves a plugin, with the codes of CNI spec 1.1.0, section "Error"."""

from __future__ import annotations

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
INVALID_ENV = 4
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_CONFIG = 7
TRY_AGAIN_LATER = 11
NOT_READY = 50
LIMITED = 51

# From 100 on the codes belong to the plugin.
KERNEL_LACKS = 100
"""The running kernel has no fq, no ipvlan, ...; the sentence names the option or module."""
NODE_NOT_READY = 101
"""A setting of the node that only its operator may change, such as net.ipv4.ip_forward."""
CONFLICT = 102
"""Something that is not ours, or another network of ours, is in the way."""
CHECK_FAILED = 103
"""CHECK found the attachment not to be what ADD made; the sentence lists the differences."""
INTERNAL = 199
"""A defect in bypath."""


class CniError(Exception):
    """An error that the runtime gets as JSON on stdout.

    code     a number of the table above
    msg      one sentence that names the field, variable, file or device and says what to do
    details  what the kernel or a delegate said, may be empty
    """

    __slots__ = ("code", "details", "msg")

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg
        self.details = details


def from_os_error(error: OSError) -> CniError:
    """What a system call said, as a sentence for the node's operator."""
    import errno

    what = f"{error.filename}: {error.strerror}" if error.filename else (error.strerror or str(error))
    if error.errno in (errno.EPERM, errno.EACCES):
        return CniError(IO_FAILURE, f"{what}: the plugin needs root in the node's own namespaces; run it as root", "")
    return CniError(IO_FAILURE, f"{what}", f"errno {error.errno} ({errno.errorcode.get(error.errno or 0, '?')})")
