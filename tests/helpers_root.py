"""Temporarily drops root's right to read and write everything, for tests of missing permissions."""

import contextlib
import ctypes
import os

_VERSION = 0x20080522  # of the kernel interface with two words per capability set
_ALL_FILES = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("thread", ctypes.c_int)]


@contextlib.contextmanager
def modes_hold():
    """Makes file modes apply to this thread, and to those that it starts, within the context."""
    if os.geteuid() != 0:
        yield
        return
    libc, header, sets = ctypes.CDLL(None, use_errno=True), _Header(_VERSION, 0), (ctypes.c_uint32 * 6)()
    _checked(libc.capget(ctypes.byref(header), sets))
    before = sets[0]  # the effective set; the permitted set is kept, so that this can be undone
    sets[0] &= ~_ALL_FILES
    _checked(libc.capset(ctypes.byref(header), sets))
    try:
        yield
    finally:
        sets[0] = before
        _checked(libc.capset(ctypes.byref(header), sets))


def _checked(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
