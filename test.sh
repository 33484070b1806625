#!/usr/bin/env bash
# Runs all tests. Installs what they need where it may (Debian, as root), and names it where it may not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if ! command -v cargo >/dev/null; then
    echo "test.sh: cargo is missing: install Rust 1.89 or later (rustup, or Debian's packages rustc and cargo where new enough)" >&2
    exit 1
fi
if ! command -v cc >/dev/null; then # Rust links with it
    if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
        apt-get update -qq && apt-get install -y -qq gcc libc6-dev
    else
        echo "test.sh: a C linker is missing: install the Debian packages gcc and libc6-dev" >&2
        exit 1
    fi
fi
exec cargo test "$@"
