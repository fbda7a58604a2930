#!/usr/bin/env bash
# rust-target.sh - makes `cargo build --target wasm32-wasip2` possible.
#
# In this order:
#   1. the active toolchain has the target: nothing to do;
#   2. the overlay of step 4 was made before: use it;
#   3. `rustup target add`, where rustup is there and can reach its server;
#   4. an overlay: Debian's rustc and its wasm32 standard library, fetched by apt from the archive that this
#      machine already uses (signatures checked), unpacked in a cache folder. Nothing is installed.
#
# Progress goes to stderr. Stdout is shell code, empty in cases 1 and 3:
#   eval "$(components/rust-target.sh)" && cargo build --target wasm32-wasip2
#
# Settings: CAXTON_CACHE          cache folder (default ${XDG_CACHE_HOME:-$HOME/.cache}/caxton)
#           CAXTON_RUST_SUITE     Debian suite of the overlay (default forky)
#           CAXTON_RUST_OVERLAY=1 use the overlay even where rustup could help
set -euo pipefail

readonly TARGET=wasm32-wasip2
readonly SUITE=${CAXTON_RUST_SUITE:-forky}
readonly CACHE=${CAXTON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/caxton}/rust-target
readonly OVERLAY=$CACHE/$SUITE
readonly ROOT=$OVERLAY/root

say() { echo "rust-target: $*" >&2; }
die() { say "$*"; exit 1; }

# `rustc --print target-libdir` succeeds for a target that is not there: look for the library itself.
toolchain_has_target() {
  local libs
  libs=$(rustc --print target-libdir --target "$TARGET" 2>/dev/null) && ls "$libs"/libstd-*.rlib >/dev/null 2>&1
}

rustup_adds_target() {
  command -v rustup >/dev/null || return 1
  say "rustup target add $TARGET"
  timeout 120 rustup target add "$TARGET" >&2 && toolchain_has_target
}

print_environment() {
  printf 'export RUSTC=%q\n' "$OVERLAY/bin/rustc"
  printf 'export RUSTDOC=%q\n' "$OVERLAY/bin/rustdoc"
  printf 'export CARGO_TARGET_WASM32_WASIP2_LINKER=%q\n' "$(cat "$OVERLAY/linker")"
}

# apt with folders of its own: it reads and changes nothing of the system's.
apt() {
  apt-get -q \
    -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$OVERLAY/sources" \
    -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
    -o Dir::State::lists="$OVERLAY/lists" -o Dir::State::status="$OVERLAY/status" \
    -o Dir::State::extended_states="$OVERLAY/extended" -o Dir::Cache::archives="$OVERLAY/archives" \
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Acquire::Languages=none \
    -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
    -o Acquire::AllowInsecureRepositories=false -o APT::Get::AllowUnauthenticated=false \
    -o APT::Sandbox::User="$(id -un)" -o APT::Install-Recommends=false -o Debug::NoLocking=true \
    -o APT::Get::List-Cleanup=false -o DPkg::Post-Invoke= -o APT::Update::Post-Invoke= \
    -o APT::Update::Post-Invoke-Success= -o Acquire::Retries=3 "$@" >&2
}

# The archive is the one that this machine's own apt sources name.
write_source() {
  local uri key=/usr/share/keyrings/debian-archive-keyring.gpg
  uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v -i security | sort -u | head -1)
  [ -n "$uri" ] || die "no Debian archive in apt's sources; run 'rustup target add $TARGET' where there is a network"
  {
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nArchitectures: %s\n' \
      "$uri" "$SUITE" "$(dpkg --print-architecture)"
    if [ -e "$key" ]; then echo "Signed-By: $key"; fi
  } > "$OVERLAY/sources/archive.sources"
}

unpack() {
  local package
  for package in "$OVERLAY"/archives/*.deb; do dpkg-deb -x "$package" "$ROOT"; done
}

# A program of the overlay runs through the overlay's own loader, since its libc is newer than this machine's.
write_wrapper() { # WRAPPER PROGRAM LOADER LIBRARIES [OPTION...]
  local wrapper=$1 program=$2 loader=$3 libraries=$4
  shift 4
  {
    echo '#!/bin/sh'
    printf 'exec %q --library-path %q %q' "$loader" "$libraries" "$program"
    if [ $# -gt 0 ]; then printf ' %q' "$@"; fi
    echo ' "$@"'
  } > "$wrapper"
  chmod +x "$wrapper"
}

make_overlay() {
  local tool loader libraries host theirs ours lld linker
  for tool in apt-get dpkg-deb cc; do
    command -v $tool >/dev/null ||
      die "no target $TARGET and no $tool to fetch one; run 'rustup target add $TARGET' where there is a network"
  done
  rm -rf "$OVERLAY"
  mkdir -p "$OVERLAY"/{bin,root,sources,lists/partial,archives/partial}
  : > "$OVERLAY/status"
  write_source

  say "reading the package index of Debian $SUITE"
  apt update
  say "fetching rustc and its standard library for $TARGET (about 195 MB)"
  apt -y --download-only install libstd-rust-dev libstd-rust-dev-wasm32
  # rustc alone: the C toolchain that its package depends on is this machine's.
  (cd "$OVERLAY/archives" && apt download rustc)
  lld=$(dpkg-deb -f "$OVERLAY"/archives/libstd-rust-dev-wasm32_*.deb Recommends | grep -o 'lld-[0-9]*' | head -1)
  unpack

  loader=$(find "$ROOT" -type f -name 'ld-linux-*.so.*' | head -1)
  libraries=$(find "$ROOT/usr/lib" "$ROOT/lib" -maxdepth 1 -type d -name '*-linux-gnu' 2>/dev/null | paste -sd:) || true
  [ -n "$loader" ] && [ -n "$libraries" ] || die "the packages hold no loader"
  for tool in rustc rustdoc; do
    write_wrapper "$OVERLAY/bin/$tool" "$ROOT/usr/bin/$tool" "$loader" "$libraries" --sysroot "$ROOT/usr"
  done

  # The component linker and an lld: the active toolchain's, placed where rustc looks first.
  host=$("$OVERLAY/bin/rustc" -vV | sed -n 's/^host: //p')
  theirs=$(rustc --print sysroot 2>/dev/null || true)/lib/rustlib/$host/bin
  ours=$ROOT/usr/lib/rustlib/$host/bin
  linker=$ours/wasm-component-ld
  if [ -x "$theirs/wasm-component-ld" ] && [ -x "$theirs/gcc-ld/wasm-ld" ]; then
    ln -sfn "$(readlink -f "$theirs")" "$ours"
  else
    say "fetching $lld and building wasm-component-ld"
    rm -f "$OVERLAY"/archives/*.deb
    apt -y --download-only install "$lld"
    unpack
    mkdir -p "$ours/gcc-ld"
    libraries=$libraries:$ROOT/usr/lib/llvm-${lld#lld-}/lib
    write_wrapper "$ours/gcc-ld/wasm-ld" "$(readlink -f "$ROOT/usr/bin/wasm-$lld")" "$loader" "$libraries"
    # lld tells by its own name what it is to link.
    sed -i 's/--library-path/--argv0 wasm-ld --library-path/' "$ours/gcc-ld/wasm-ld"
    cargo install --locked --root "$OVERLAY" wasm-component-ld >&2
    printf '#!/bin/sh\nPATH=%q:$PATH exec %q "$@"\n' "$ours/gcc-ld" "$OVERLAY/bin/wasm-component-ld" > "$linker"
    chmod +x "$linker"
  fi
  echo "$linker" > "$OVERLAY/linker"

  echo 'fn main() { println!("ready") }' > "$OVERLAY/probe.rs"
  "$OVERLAY/bin/rustc" --edition 2024 -O --target "$TARGET" -C linker="$linker" \
    -o "$OVERLAY/probe.wasm" "$OVERLAY/probe.rs" >&2
  [ "$(head -c8 "$OVERLAY/probe.wasm" | od -An -tx1 | tr -d ' \n')" = 0061736d0d000100 ] ||
    die "the overlay does not make components"
  rm -rf "$OVERLAY"/{archives,lists,probe.rs,probe.wasm}
  say "ready: $("$OVERLAY/bin/rustc" -V), $(du -sm "$ROOT" | cut -f1) MB in $OVERLAY"
  touch "$OVERLAY/ok"
}

if [ -z "${CAXTON_RUST_OVERLAY:-}" ] && toolchain_has_target; then exit 0; fi
if [ -e "$OVERLAY/ok" ]; then print_environment; exit 0; fi

mkdir -p "$CACHE"
exec 9>"$CACHE/lock"
flock 9
if [ -e "$OVERLAY/ok" ]; then print_environment; exit 0; fi
if [ -z "${CAXTON_RUST_OVERLAY:-}" ] && rustup_adds_target; then exit 0; fi
say "$TARGET cannot be had from rustup: making an overlay of Debian $SUITE's rustc"
make_overlay
print_environment
