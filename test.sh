#!/usr/bin/env bash
# Runs all tests. Installs what they need where it may (Debian, as root), and names it where it may not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if ! command -v cargo >/dev/null; then
    echo "test.sh: cargo is missing: install Rust 1.89 or later (rustup, or Debian's packages rustc and cargo where new enough)" >&2
    exit 1
fi

# Rust links with cc. Kernel tests use the rest, each in network namespaces of its own.
packages=()
need() { command -v "$1" >/dev/null || [[ -x /usr/sbin/$1 ]] || packages+=("${@:2}"); }
need cc gcc libc6-dev
need nft nftables
need iptables iptables
need ipset ipset
need ip iproute2
need unshare util-linux
need ping iputils-ping
need sysctl procps
need tcpdump tcpdump
if ((${#packages[@]})); then
    if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${packages[@]}" >/dev/null
    else
        echo "test.sh: install the Debian packages ${packages[*]}" >&2
        exit 1
    fi
fi
export PATH="$PATH:/usr/sbin:/sbin"

if [[ $EUID -eq 0 ]]; then
    exec cargo test "$@"
fi
# Kernel tests need the rights of root, in a namespace of the user's own.
cargo test --no-run "$@"
unshare --map-root-user --net true || {
    echo "test.sh: run it as root: the kernel tests need network namespaces, which this user may not make" >&2
    exit 1
}
exec unshare --map-root-user --net cargo test --offline "$@"
