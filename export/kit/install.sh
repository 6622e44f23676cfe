#!/bin/sh
# Installs Edgewright from this folder: no network, nothing is compiled, and without root it stays in your home folder.
# Usage: sh install.sh [PREFIX]; $PYTHON names a Python. Run again, it repairs, or does nothing.
# What was installed before stays beside it: `ln -sfn OTHER PREFIX/current` goes back.
set -eu
id=@ID@ machine=@MACHINE@ pythons="@PYTHONS@"
kit=$(cd "$(dirname "$0")" && pwd)
if [ "$(id -u)" = 0 ]; then prefix=/opt/edgewright bin=/usr/local/bin; else prefix=$HOME/.local/lib/edgewright bin=$HOME/.local/bin; fi
prefix=${1:-$prefix}
needed_kib=400000

fail() {
    echo "install: $1" >&2
    exit "${2:-3}"
}

[ "$(uname -m)" = "$machine" ] || fail "this kit is for $machine, and this machine is $(uname -m)" 2
(cd "$kit" && sha256sum --quiet -c SHA256SUMS) >&2 || fail "the kit is damaged: copy it again" 4

python=
for name in ${PYTHON:-} python3.13 python3.12 python3.11 python3; do
    found=$("$name" -c 'import sys, venv; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    case " $pythons " in *" $found "*) python=$name && break ;; esac
done
[ -n "$python" ] || fail "no Python of $pythons with its module venv: install python3 and python3-venv" 3

new=$prefix/$id
mkdir -p "$prefix" 2>/dev/null || fail "cannot write to $prefix: be root, or give another folder" 2
if [ ! -e "$new/installed" ]; then
    free_kib=$(df -Pk "$prefix" | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4)
    [ "$free_kib" -gt "$needed_kib" ] || fail "$prefix has $((free_kib / 1024)) MB free, and $((needed_kib / 1024)) are needed" 3
    rm -rf "$new"
    "$python" -m venv --without-pip "$new"
    pip=$(echo "$kit"/wheels/pip-*.whl)
    "$new/bin/python" "$pip/pip" install --isolated --quiet --no-index --no-cache-dir --disable-pip-version-check \
        --find-links "$kit/wheels" --require-hashes -r "$kit/requirements.txt" || fail "pip could not install the wheels" 3
    "$new/bin/python" -c 'import llama_cpp, llguidance' || fail "llama.cpp does not load here (is the system older than the kit?)" 3
    cp "$kit/kit.json" "$new/kit.json"
    sync
    : >"$new/installed"
fi
ln -sfn "$id" "$prefix/.current-aside" && mv -T "$prefix/.current-aside" "$prefix/current"
mkdir -p "$bin" && ln -sfn "$prefix/current/bin/edgewright" "$bin/edgewright"
"$prefix/current/bin/edgewright" --version
case ":$PATH:" in *":$bin:"*) ;; *) echo "install: $bin is not on your PATH" >&2 ;; esac
echo "installed in $new; next: edgewright flash BUNDLE BOX, edgewright doctor BOX, edgewright serve BOX"
