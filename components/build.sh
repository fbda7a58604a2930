#!/usr/bin/env bash
# build.sh - builds the guests: components/dist/NAME.wasm.
#
#   components/build.sh                 all of them
#   components/build.sh echo counter    these
#   components/build.sh demo            a group: demo (components/*), tests (components/tests/*),
#                                       hostile (components/hostile/*), benches (components/benches/*) or
#                                       hosts (components/hosts/*, made with the SDKs of other hosts)
#   components/build.sh --list          name, language and folder of each
#
# A folder with Cargo.toml is a guest in Rust, one with agent.js in JavaScript, one with app.py in Python.
# What has not changed is not built again, and a file in dist is replaced in one step and only by other bytes.
#
# The tools of JavaScript (node >= 20, npm) and Python (python3 >= 3.10 with venv) are looked for; what compiles
# with them is fetched on first use into the cache folder, ${XDG_CACHE_HOME:-$HOME/.cache}/caxton. A guest whose
# tools are missing is skipped, unless it was asked for by its name. components/dist/languages says which
# languages were built, as JSON: {"rust": true, "javascript": true, "python": "skipped: needs python3 >= 3.10"}
#
# Exit: 0 built, 1 a build failed or a tool is missing, 2 no such guest.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly root=${here%/*}
readonly dist=$here/dist
readonly work=$here/target
export CAXTON_CACHE=${CAXTON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/caxton}

say() { echo "$*" >&2; }
die() { say "build.sh: $*"; exit 1; }

# --- which guests there are

list_folder() { # GROUP FOLDER: lines of NAME LANGUAGE GROUP FOLDER
  local folder language
  for folder in "$2"/*/; do
    folder=${folder%/}
    if [ -e "$folder/Cargo.toml" ]; then language=rust
    elif [ -e "$folder/agent.js" ]; then language=javascript
    elif [ -e "$folder/app.py" ]; then language=python
    else continue; fi
    echo "$(basename "$folder") $language $1 ${folder#"$here"/}"
  done
}

list_guests() {
  list_folder demo "$here"
  list_folder tests "$here/tests"
  list_folder hostile "$here/hostile"
  list_folder benches "$here/benches"
  list_folder hosts "$here/hosts"
}

# --- which tools there are

# Prints what is missing for a language; nothing when all is there.
missing_tool() { # LANGUAGE
  case $1 in
    rust) command -v cargo >/dev/null || echo "needs cargo (rustup.rs)" ;;
    javascript)
      if ! command -v node >/dev/null || ! command -v npm >/dev/null ||
        ! node -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)' 2>/dev/null; then
        echo "needs node >= 20 and npm"
      fi ;;
    python)
      if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
        echo "needs python3 >= 3.10"
      elif ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        echo "needs python3's venv (package python3-venv)"
      fi ;;
  esac
}

# One run at a time. A system without flock has none of this: files in dist are replaced in one step all the same.
lock() { # FD FILE
  command -v flock >/dev/null || return 0
  eval "exec $1>\"\$2\""
  flock -n "$1" || { say "waiting for another build"; flock "$1"; }
}

# --- languages

# Shows what a command says only when it fails.
quietly() {
  local log
  log=$("$@" 2>&1) || { say "$log"; return 1; }
}

install_file() { # BUILT NAME
  if ! cmp -s "$1" "$dist/$2.wasm"; then
    cp "$1" "$dist/.$2.wasm.$$"
    mv -f "$dist/.$2.wasm.$$" "$dist/$2.wasm"
    say "  components/dist/$2.wasm ($(($(wc -c < "$1") / 1024)) KiB)"
  fi
}

build_rust() { # WORKSPACE NAME...
  local name environment workspace=$1 progress=--quiet
  shift
  if [ -t 2 ]; then progress=; fi
  environment=$("$here/rust-target.sh") || die "the target wasm32-wasip2 is not there"
  say "building $* (rust) ..."
  (
    eval "$environment"
    # Settings meant for the host's target.
    unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET CARGO_BUILD_RUSTFLAGS
    # The whole workspace even for one guest: a dependency gets the features that all who are built together ask
    # for, so a guest built alone would have other bytes, and count as changed, each time.
    cargo build $progress --workspace --manifest-path "$workspace/Cargo.toml" --target-dir "$work" \
      --release --target wasm32-wasip2 >&2
  ) || die "cargo failed"
  for name in "$@"; do install_file "$work/wasm32-wasip2/release/${name//-/_}.wasm" "$name"; done
}

# True when nothing that a guest is made of has changed since it was built.
is_current() { # NAME FOLDER TOOLS
  local sum
  sum=$(cd "$root" && find wit "components/$2" "components/$3" components/build.sh -type f ! -name '*.pyc' -print0 |
    sort -z | xargs -0 cksum | cksum)
  echo "$sum" > "$work/stamps/$1.new"
  [ -e "$dist/$1.wasm" ] && cmp -s "$work/stamps/$1.new" "$work/stamps/$1"
}

mark_current() { mv -f "$work/stamps/$1.new" "$work/stamps/$1"; } # NAME

# Compilers of a language, in the cache folder under the checksum of what names their versions.
tools_folder() { # LANGUAGE FILE...
  local language=$1
  shift
  echo "$CAXTON_CACHE/$language-tools/$(cat "$@" | cksum | tr ' ' '-')"
}

javascript_tools() { tools_folder javascript "$here/tools/javascript/package-lock.json"; }

fetch_javascript() { # FOLDER
  cp "$here"/tools/javascript/{package.json,package-lock.json,.npmrc} "$1/"
  # Not `npm ci`: it wants the builds for every system in the lock file, and not all are published.
  (cd "$1" && quietly npm install --no-save --ignore-scripts --fetch-retries=1 --no-audit --no-fund --loglevel=error)
}

build_javascript() { # NAME FOLDER OUT
  quietly "$(javascript_tools)/node_modules/.bin/componentize-qjs" --sync --opt-size --wit "$root/wit" --world agent \
    --js "$here/$2/agent.js" -o "$3"
}

python_tools() {
  local version
  version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  echo "$(tools_folder python "$here/tools/python/requirements.txt")-$version"
}

fetch_python() { # FOLDER
  quietly python3 -m venv --clear "$1" &&
    quietly "$1/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/tools/python/requirements.txt"
}

build_python() { # NAME FOLDER OUT
  local tools
  tools=$(python_tools)
  # From a copy, since Python leaves its caches beside the source.
  rm -rf "$work/python/$1"
  mkdir -p "$work/python"
  cp -R "$here/$2" "$work/python/$1"
  # Packages of a virtual environment that happens to be active are not for this guest.
  quietly env -u VIRTUAL_ENV "$tools/bin/componentize-py" -d "$root/wit" -w agent componentize \
    -p "$work/python/$1" app -o "$3"
}

# Fetches a language's compiler unless it is there.
ensure_tools() { # LANGUAGE
  local tools
  tools=$("$1_tools")
  if [ -e "$tools/ready" ]; then return 0; fi
  mkdir -p "$tools"
  lock 8 "$tools.lock"
  if [ -e "$tools/ready" ]; then return 0; fi
  say "fetching the compiler of $1 ..."
  "fetch_$1" "$tools" && touch "$tools/ready"
}

# --- what is asked for

guests=$(list_guests)
case ${1:-} in
  -h | --help) sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
  --list) echo "$guests" | while read -r name language _ folder; do echo "$name $language components/$folder"; done; exit 0 ;;
esac

wanted=
by_name=" "
for argument in "${@:-all}"; do
  case $argument in
    all) found=$guests ;;
    demo | tests | hostile | benches | hosts) found=$(echo "$guests" | awk -v group="$argument" '$3 == group') ;;
    *)
      found=$(echo "$guests" | awk -v name="$argument" '$1 == name')
      by_name="$by_name$argument " ;;
  esac
  if [ -z "$found" ]; then
    say "build.sh: there is no guest called $argument; there are: $(echo "$guests" | cut -d' ' -f1 | paste -sd' ' -)"
    exit 2
  fi
  wanted+=$found$'\n'
done
wanted=$(echo "$wanted" | awk 'NF && !seen[$1]++')

mkdir -p "$dist" "$work/stamps"
lock 9 "$work/build.lock"

rust=()
hosts=()
others=
while read -r name language _ folder; do
  missing=$(missing_tool "$language")
  if [ -n "$missing" ]; then
    case $by_name in *" $name "*) die "$name $missing" ;; esac
    say "skipped: $name ($missing)"
  elif [ "$language" = rust ]; then
    case $folder in
      hosts/*) hosts+=("$name") ;;
      *) rust+=("$name") ;;
    esac
  else
    others+="$name $language $folder"$'\n'
  fi
done <<< "$wanted"

if [ ${#rust[@]} -gt 0 ]; then build_rust "$here" "${rust[@]}"; fi
# Each is a workspace of its own.
for name in "${hosts[@]}"; do build_rust "$here/hosts/$name" "$name"; done
unfetched=" "
while read -r name language folder; do
  if [ -z "$name" ] || is_current "$name" "$folder" "tools/$language"; then continue; fi
  case $unfetched in *" $language "*) ;; *) ensure_tools "$language" || unfetched="$unfetched$language " ;; esac
  case $unfetched in
    *" $language "*)
      case $by_name in *" $name "*) die "the compiler of $language cannot be fetched, which $name needs" ;; esac
      say "skipped: $name (the compiler of $language cannot be fetched)"
      continue ;;
  esac
  say "building $name ($language) ..."
  "build_$language" "$name" "$folder" "$work/$name.wasm" || die "$name was not built"
  install_file "$work/$name.wasm" "$name"
  mark_current "$name"
done <<< "$others"

# --- what came of it

state_of() { # LANGUAGE: true, or why not, as JSON
  local missing name
  missing=$(missing_tool "$1")
  if [ -n "$missing" ]; then echo "\"skipped: $missing\""; return; fi
  case $unfetched in *" $1 "*) echo '"skipped: its compiler cannot be fetched"'; return ;; esac
  for name in $(echo "$guests" | awk -v language="$1" '$2 == language && $3 == "demo" {print $1}'); do
    if [ ! -e "$dist/$name.wasm" ]; then echo '"not built"'; return; fi
  done
  echo true
}
printf '{"rust": %s, "javascript": %s, "python": %s}\n' "$(state_of rust)" "$(state_of javascript)" "$(state_of python)" \
  > "$dist/.languages.$$"
mv -f "$dist/.languages.$$" "$dist/languages"
