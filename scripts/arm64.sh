#!/bin/sh
# A bare 64-bit ARM machine for trying kits: Debian's packages in a folder, its processor emulated. No root is needed.
# Usage: arm64.sh make FOLDER [PACKAGE...]    fetch Debian 12 for arm64 into a new folder (200 MB), with Python and venv
#        arm64.sh run FOLDER COMMAND...       run a command in it; $SHARE is a folder of this machine's, there as /mnt
# Needs Debian's packages mmdebstrap, proot and qemu-user-static.
set -eu
usage() { sed -n '3,5p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
verb=$1 folder=$2
shift 2
case $verb in
make)
    [ ! -e "$folder" ] || { echo "arm64: $folder is there already" >&2; exit 2; }
    list=python3,python3-venv,libstdc++6,dash,coreutils,findutils,sed,grep,procps
    for package; do list=$list,$package; done
    mmdebstrap --variant=extract --architectures=arm64 --include="$list" bookworm "$folder"
    ;;
run)
    [ $# -ge 1 ] || usage
    # Libraries for matrices choose their code by the processor; cortex-a76 is a Raspberry Pi 5's.
    exec env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/root LANG=C.UTF-8 QEMU_CPU="${QEMU_CPU:-cortex-a76}" \
        proot -q qemu-aarch64-static -0 -r "$folder" -b /dev -b /proc -b /sys ${SHARE:+-b "$SHARE:/mnt"} -w / "$@"
    ;;
*) usage ;;
esac
