"""Run by the doctor in a process of its own: prints the devices that EGL can draw on, as JSON.

Standard library only: a driver that crashes takes this process with it, not the doctor.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable

_MOST = 32
_EXTENSIONS = 0x3055
"""EGL_EXTENSIONS."""
_DRM_FILE = 0x3233
"""EGL_DRM_DEVICE_FILE_EXT."""


def devices() -> list[str]:
    """Name the devices, as the extension EGL_EXT_device_enumeration lists them.

    Raises:
        OSError: If there is no library of EGL.
        RuntimeError: If it cannot list devices.
    """
    egl = ctypes.CDLL("libEGL.so.1")
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    egl.eglGetProcAddress.argtypes = [ctypes.c_char_p]
    query = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    name = egl.eglGetProcAddress(b"eglQueryDeviceStringEXT")
    if not query or not name:
        raise RuntimeError("libEGL is there, but no driver for it")
    pointers = ctypes.POINTER(ctypes.c_void_p)
    list_devices = ctypes.CFUNCTYPE(
        ctypes.c_uint, ctypes.c_int, pointers, ctypes.POINTER(ctypes.c_int)
    )(query)
    say = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int)(name)
    found, count = (ctypes.c_void_p * _MOST)(), ctypes.c_int()
    if not list_devices(_MOST, found, ctypes.byref(count)):
        return []
    return [_describe(say, found[i]) for i in range(count.value)]


def _describe(say: Callable[[int | None, int], bytes | None], device: int | None) -> str:
    """Return the file of a device, or what kind it is."""
    extensions = (say(device, _EXTENSIONS) or b"").decode().split()
    if "EGL_MESA_device_software" in extensions:
        return "software"
    named = say(device, _DRM_FILE) if "EGL_EXT_device_drm" in extensions else None
    return (named or b"a GPU without a name").decode()


if __name__ == "__main__":
    try:
        print(json.dumps({"devices": devices()}))
    except (OSError, RuntimeError) as error:
        print(json.dumps({"devices": [], "error": str(error)}))
