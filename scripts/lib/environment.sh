# shellcheck shell=bash
# Sourced by the scripts beside it: Debian packages and the Python environment, made once and kept.
# The working directory is the root of the project.

fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

# need_debian COMMAND:PACKAGE...: installs the packages whose command is missing, or says which they are; what the
# Python environment needs is among them, so that all of it is said at once.
need_debian() {
  local pair python missing=()
  python=$(find_python)
  has_venv "$python" || missing+=("$(venv_package "$python")")
  export PATH="$PATH:/usr/sbin" # mosquitto lives there, and it is not on every user's path
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
  done
  [ ${#missing[@]} -eq 0 ] || install_debian "${missing[@]}"
}

install_debian() {
  command -v apt-get >/dev/null || fail "Please install: $*"
  [ "$(id -u)" -eq 0 ] || fail "Debian packages are missing. As root: apt-get install $*"
  printf 'Installing Debian packages: %s\n' "$*" >&2
  # The tests start their own servers; one that a package starts would hold a port.
  local policy=/usr/sbin/policy-rc.d own_policy=no
  if [ ! -e "$policy" ]; then
    own_policy=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  local status=0
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; } >&2 ||
    status=$?
  [ "$own_policy" = no ] || rm -f "$policy"
  [ "$status" -eq 0 ] || fail "apt-get could not install: $*"
}

is_supported() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# The floor first, so that what works here works for everybody.
find_python() {
  local candidate
  for candidate in python3.11 python3 python3.12 python3.13; do
    if is_supported "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  fail "Python 3.11 or newer is needed. On Debian 12, as root: apt-get install python3 python3-venv"
}

has_venv() {
  "$1" -c 'import ensurepip, venv' 2>/dev/null
}

version_of() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'
}

venv_package() {
  printf 'python%s-venv\n' "$(version_of "$1")"
}

# make_environment DIRECTORY [PYTHON]: a virtual environment with provisiond (editable) and its development tools.
# Brought up to date when pyproject.toml or the interpreter changes.
make_environment() {
  local directory=$1 python version stamp
  python=${2:-$(find_python)}
  version=$(version_of "$python")
  stamp="$version $(sha256sum <pyproject.toml)"
  if [ "$(cat "$directory/provisiond.stamp" 2>/dev/null)" = "$stamp" ]; then
    return
  fi
  printf 'Making %s with Python %s\n' "$directory" "$version" >&2
  has_venv "$python" || install_debian "$(venv_package "$python")"
  [ -x "$directory/bin/python$version" ] || rm -rf "$directory"
  "$python" -m venv "$directory"
  "$directory/bin/python" -m pip install --quiet --upgrade "pip>=25.1" >&2 # the first with --group
  "$directory/bin/python" -m pip install --quiet --editable . --group dev >&2
  printf '%s\n' "$stamp" >"$directory/provisiond.stamp"
}
