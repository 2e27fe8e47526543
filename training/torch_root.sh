#!/bin/bash
# Makes a throw-away Debian root with PyTorch in it, for the two trainings. Needs root, debootstrap and about 2 GB of disk.
#
#   training/torch_root.sh FOLDER            a root at FOLDER (about four minutes), this checkout visible inside
#   chroot FOLDER python3 "$PWD/training/painter/score.py" truth     runs a script of ours inside
#   training/torch_root.sh --unmount FOLDER  before deleting it: rm -rf on a root with mounts deletes what is mounted
#
# Why a root: PyTorch with bf16 on the matrix units of new processors is in Debian 14 (forky) and later only, and
# what we run it beside is Debian 12. Nothing is installed on the machine itself. The checkout is bind-mounted at
# its own path, so that the same file names work on both sides; /proc, /sys and /dev come along.
set -euo pipefail

RELEASE=${RELEASE:-forky}
MIRROR=${MIRROR:-http://deb.debian.org/debian}
HERE=$(cd "$(dirname "$0")/.." && pwd)

say() { echo "torch_root: $*"; }
die() { echo "torch_root: $*" >&2; exit 1; }

unmount_all() {
    local root=$1 at
    for at in "$root$HERE" "$root/dev" "$root/sys" "$root/proc"; do
        if mountpoint -q "$at"; then umount "$at"; fi
    done
    say "nothing of this machine is mounted in $root any more"
}

mount_into() {
    local root=$1 at=$2
    mkdir -p "$root$at"
    mountpoint -q "$root$at" || mount --bind "$at" "$root$at"
}

[ "$(id -u)" = 0 ] || die "needs root (it uses debootstrap and bind mounts): sudo $0 $*"
if [ "${1:-}" = --unmount ]; then
    [ -n "${2:-}" ] || die "--unmount needs the folder"
    unmount_all "$(realpath "$2")"
    exit 0
fi
[ -n "${1:-}" ] || die "say where: $0 FOLDER"
command -v debootstrap > /dev/null || die "debootstrap is missing: apt-get install debootstrap"
mkdir -p "$1"
root=$(realpath "$1")

if [ ! -x "$root/usr/bin/apt-get" ]; then
    say "Debian $RELEASE into $root"
    # a debootstrap from before this release has no script of its name; all newer ones are the same
    debootstrap --variant=minbase "$RELEASE" "$root" "$MIRROR" /usr/share/debootstrap/scripts/sid > "$root.log" 2>&1 \
        || die "debootstrap failed, see $root.log"
fi
for at in /proc /sys /dev "$HERE"; do mount_into "$root" "$at"; done
if ! chroot "$root" python3 -c 'import torch, numpy, PIL' 2> /dev/null; then
    say "PyTorch, NumPy and Pillow"
    # an archive that is a mirror's snapshot may be past its date; its signature is still checked
    { chroot "$root" apt-get -o Acquire::Check-Valid-Until=false update \
        && chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
            python3-torch python3-numpy python3-pil; } >> "$root.log" 2>&1 || die "apt failed, see $root.log"
fi
chroot "$root" python3 -c 'import torch; print("torch_root: ready, PyTorch", torch.__version__)'
