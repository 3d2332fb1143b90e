#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what packaging/apt-packages.txt names and dpkg does not have; nothing missing, nothing called.
# Then makes .venv with what pyproject.toml names. Asks nothing; needs root only when a package is missing.
set -eu
cd "$(dirname "$0")/.."
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
stamp=.venv/.installed

has() { dpkg-query -W -f '${db:Status-Status}\n' "$1" 2> /dev/null | grep -qx installed; }

# Also what another package provides: bpftool is such a name on some releases of Ubuntu.
candidate() { apt-cache show --no-all-versions "$1" 2> /dev/null | grep -q '^Package:'; }

missing() {
    grep -v '^#' packaging/apt-packages.txt | while read -r line; do
        present=
        for name in $(echo "$line" | tr '|' ' '); do
            if has "$name"; then present=$name; fi
        done
        if [ -z "$present" ]; then echo "$line"; fi
    done
}

choose() {
    for line in "$@"; do
        for name in $(echo "$line" | tr '|' ' '); do
            if candidate "$name"; then echo "$name"; continue 2; fi
        done
        # apt-get says it better than we would.
        echo "$line"
    done
}

# The servers among the packages are for tests, which start them in namespaces: the machine itself is not to serve.
forbid_services() {
    policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then return; fi
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
}

install_apt() {
    wanted=$(missing)
    if [ -z "$wanted" ]; then return; fi
    if [ "$(id -u)" != 0 ]; then
        echo "packages are missing; as root, type: apt-get update && apt-get install $(echo "$wanted" | tr '\n' ' ')" >&2
        exit 1
    fi
    forbid_services
    apt-get update -qq -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3
    # shellcheck disable=SC2046,SC2086
    apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 \
        -o Dpkg::Options::=--force-confold $(choose $wanted) < /dev/null
}

# The distribution's own Python first: one from elsewhere in PATH may lack the shared library that a build needs.
python() {
    for candidate in /usr/bin/python3 python3; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 or newer with venv is missing; Debian 12, Ubuntu 24.04 and later have it in python3-venv" >&2
    exit 1
}

install_pip() {
    if [ -e "$stamp" ] && [ ! pyproject.toml -nt "$stamp" ]; then return; fi
    base=$(python)
    if [ ! -x .venv/bin/pip ]; then "$base" -m venv .venv; fi
    .venv/bin/python - > .venv/requirements.txt << 'END'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))
print(*project["project"]["dependencies"], *sum(project["dependency-groups"].values(), []), sep="\n")
END
    .venv/bin/pip install --quiet --disable-pip-version-check --retries 5 -r .venv/requirements.txt < /dev/null
    touch "$stamp"
}

install_apt
install_pip
