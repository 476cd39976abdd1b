#!/usr/bin/env bash
# Make the base image localhost/debian:bookworm from Debian's packages, where Docker Hub cannot be reached.
#
# infra/images/debootstrap.sh FOLDER    (an empty place for some 500 MB; needs root, debootstrap and buildah)
set -euo pipefail
folder=${1:?an empty folder}
debootstrap --variant=minbase bookworm "$folder/rootfs" > "$folder/debootstrap.log" || { tail "$folder/debootstrap.log"; exit 1; }
mkdir "$folder/base"
tar --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --directory="$folder/rootfs" --create --file="$folder/base/rootfs.tar" .
printf 'FROM scratch\nADD rootfs.tar /\nCMD ["bash"]\n' > "$folder/base/Dockerfile"
buildah bud --isolation chroot --tag localhost/debian:bookworm "$folder/base" > /dev/null
rm -rf "$folder/rootfs" "$folder/base"
