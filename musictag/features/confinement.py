"""Confine the process that decodes: it opens no connection, starts no program and traces no process.

A decoder that a hostile file has taken over could do what its process may do. Linux filters system calls (seccomp) for
any process that asks for it, also in containers without privileges. See "Seccomp BPF" in the kernel's documentation,
https://docs.kernel.org/userspace-api/seccomp_filter.html.
"""

import ctypes
import errno
import platform
import struct
import sys

# Numbers of Linux's headers: linux/audit.h, linux/seccomp.h, linux/filter.h, and the tables of system calls.
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_REFUSED = {
    "x86_64": {
        "socket": 41, "connect": 42, "execve": 59, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311,
        "execveat": 322, "io_uring_setup": 425, "pidfd_getfd": 438,
    },
    "aarch64": {
        "socket": 198, "connect": 203, "execve": 221, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271,
        "execveat": 281, "io_uring_setup": 425, "pidfd_getfd": 438,
    },
}  # fmt: skip
_SET_NO_NEW_PRIVILEGES, _SET_MODE_FILTER, _FOR_ALL_THREADS = 38, 1, 1
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET = 0, 4
# On x86-64, system calls of another ABI have numbers from here on.
_X32 = 0x40000000


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def confine() -> bool:
    """Let system calls that open connections, start programs or read other processes fail with EPERM, for ever.

    Return False if this system cannot do that. It holds for all threads of the process.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _ARCHITECTURES:
        return False
    instructions = _instructions(machine)
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    program = _Program(len(instructions), code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.syscall(_SECCOMP[machine], _SET_MODE_FILTER, _FOR_ALL_THREADS, ctypes.byref(program)) == 0)


def _instructions(machine: str) -> list[tuple[int, int, int, int]]:
    """Return the filter: code, jumps if true and if false (numbers of instructions to skip), and operand."""
    refused = sorted(_REFUSED[machine].values())
    n = len(refused)
    return [
        (_LOAD, 0, 0, _ARCHITECTURE_OFFSET),
        (_JUMP_IF_EQUAL, 0, n + 3, _ARCHITECTURES[machine]),
        (_LOAD, 0, 0, _NUMBER_OFFSET),
        (_JUMP_IF_AT_LEAST, n + 1, 0, _X32),
        *((_JUMP_IF_EQUAL, n - position, 0, number) for position, number in enumerate(refused)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
