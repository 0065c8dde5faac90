"""The image of a lab: a root filesystem made of this machine's static busybox, so that no registry is needed."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from shoal.errors import NotFound

NAME = "busybox"
DIRECTORIES = ("bin", "dev", "etc", "proc", "sys", "tmp", "www", "www/cgi-bin")
USERS = "root:x:0:0:root:/:/bin/sh\n"
# `httpd -h /www` answers /cgi-bin/hostname with the name of the container: one sees who has answered
DEFAULT_FILES = {
    "www/index.html": "hello\n",
    "www/cgi-bin/hostname": "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nhostname\n",
}


def busybox_archive(files: Mapping[str, str] | None = None) -> bytes:
    """Return a root filesystem as tar: busybox with all its applets, /etc/passwd, and text files by path.

    Raises:
        NotFound: there is no busybox on this machine.
    """
    busybox = shutil.which("busybox")
    if busybox is None:
        raise NotFound("there is no busybox on this machine to make an image of: install busybox-static")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for directory in DIRECTORIES:
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            archive.addfile(entry)
        given = DEFAULT_FILES if files is None else files
        contents = {"bin/busybox": Path(busybox).read_bytes(), "etc/passwd": USERS.encode()}
        contents |= {path: text.encode() for path, text in given.items()}
        for path, content in contents.items():
            entry = tarfile.TarInfo(path)
            is_program = path.startswith("bin/") or "/cgi-bin/" in path
            entry.size, entry.mode = len(content), 0o755 if is_program else 0o644
            archive.addfile(entry, BytesIO(content))
        for applet in applets:
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(entry)
    return buffer.getvalue()
