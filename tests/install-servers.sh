#!/bin/sh
# The real servers and programs that the tests need, from Debian, where apt and root are at hand.
# Elsewhere the tests that need them are reported as skipped, and fail instead where CI is set.
set -eu
missing=
command -v docker-registry >/dev/null 2>&1 || missing="$missing docker-registry"
command -v skopeo >/dev/null 2>&1 || missing="$missing skopeo"
command -v curl >/dev/null 2>&1 || missing="$missing curl"
command -v sqlite3 >/dev/null 2>&1 || missing="$missing sqlite3"
command -v rsync >/dev/null 2>&1 || missing="$missing rsync"
command -v openssl >/dev/null 2>&1 || missing="$missing openssl"
command -v git >/dev/null 2>&1 || missing="$missing git"
command -v git-lfs >/dev/null 2>&1 || missing="$missing git-lfs"
command -v strace >/dev/null 2>&1 || missing="$missing strace"
command -v systemd-analyze >/dev/null 2>&1 || missing="$missing systemd"
command -v cc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
command -v zstd >/dev/null 2>&1 || missing="$missing zstd"
command -v mkfs.btrfs >/dev/null 2>&1 || missing="$missing btrfs-progs"
command -v lowntfs-3g >/dev/null 2>&1 || missing="$missing ntfs-3g"
command -v zsh >/dev/null 2>&1 || missing="$missing zsh"
command -v fish >/dev/null 2>&1 || missing="$missing fish"
command -v mandoc >/dev/null 2>&1 || missing="$missing mandoc"
command -v promtool >/dev/null 2>&1 || missing="$missing prometheus"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "not installed, and cannot be installed here:$missing"
    exit 0
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 -- a list of package names
apt-get install -y -qq --no-install-recommends $missing >/dev/null
