"""What kind of file system a path is on, from the kernel's list of mounts."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from kasmos.exceptions import StoreError

_MOUNTINFO = Path("/proc/self/mountinfo")

# fmt: off
_NETWORK = frozenset({
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs", "gfs2", "glusterfs", "gpfs", "lustre",
    "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb2", "smb3", "smbfs", "vboxsf", "wekafs",
})
_NETWORK_FUSE = frozenset({
    "blobfuse", "blobfuse2", "ceph", "ceph-fuse", "curlftpfs", "cvmfs2", "davfs", "davfs2", "gcsfuse", "glusterfs",
    "goofys", "gvfsd-fuse", "juicefs", "mfs", "moosefs", "mount-s3", "rclone", "s3fs", "seaweedfs", "smbnetfs",
    "sshfs", "vmhgfs-fuse",
})
# fmt: on


def filesystem_type(path: Path, mountinfo: str | None = None) -> str:
    """The type of the file system that *path*, absolute and without symbolic links, is on; empty if unknown.

    Args:
        path: need not exist.
        mountinfo: the text of /proc/self/mountinfo, read if not given.
    """
    if mountinfo is None:
        try:
            mountinfo = _MOUNTINFO.read_text(errors="surrogateescape")
        except OSError:
            return ""
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        # ID PARENT MAJOR:MINOR ROOT MOUNT_POINT OPTIONS [OPTIONAL...] - TYPE SOURCE SUPER_OPTIONS; see proc(5)
        head, _, tail = line.partition(" - ")
        fields = head.split(" ")
        if len(fields) < 6 or not tail:
            continue
        mount = PurePosixPath(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4]))
        # The last of several mounts on one point is the one that is seen.
        if path.is_relative_to(mount) and len(mount.parts) >= best:
            best, kind = len(mount.parts), tail.split(" ")[0]
    return kind


def is_network(kind: str) -> bool:
    """Whether locks and shared memory on a file system of this type reach beyond this machine, or do not hold."""
    family, _, name = kind.partition(".")
    return kind in _NETWORK or (family in ("fuse", "fuseblk") and name in _NETWORK_FUSE)


def is_in_memory(path: Path, mountinfo: str | None = None) -> bool:
    """Whether what is written at *path* goes nowhere but into memory, so that nobody has to wait for it.

    Args:
        path: need not exist.
        mountinfo: the text of /proc/self/mountinfo, read if not given.
    """
    return filesystem_type(path.resolve(), mountinfo) in ("tmpfs", "ramfs")


def refuse_network(path: Path, mountinfo: str | None = None) -> None:
    """Require that *path* is on a file system of this machine.

    Args:
        path: need not exist.
        mountinfo: the text of /proc/self/mountinfo, read if not given.

    Raises:
        StoreError: it is not; with the reason and the cure.
    """
    kind = filesystem_type(path.resolve(), mountinfo)
    if is_network(kind):
        raise StoreError(
            f"{path} is on a network file system ({kind}), where locks do not hold: "
            "choose a local directory with --state-root or KASMOS_STATE_ROOT"
        )
