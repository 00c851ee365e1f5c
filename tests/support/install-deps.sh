#!/usr/bin/env bash
# install-deps.sh build|demo|check|matrix|bench: makes sure that what this step of the build needs is installed.
#
# Looks for the things themselves (a compiler, a library, a server), so it says nothing and costs nothing when all are
# there, on any Linux.  What is missing is installed with apt-get when we are root or sudo asks for no password;
# otherwise the command to run is printed and the exit code is 1.
set -euo pipefail

usage() {
	echo "usage: install-deps.sh build|demo|check|matrix|bench" >&2
	exit 2
}

missing=()

# need PACKAGE COMMAND...: PACKAGE is missing when COMMAND fails.
need() {
	local package=$1
	shift
	"$@" >/dev/null 2>&1 || missing+=("$package")
}

have_command() { command -v "$1"; }
have_header() { echo "#include <$1>" | cc -E -x c -; }
have_server() { compgen -G '/usr/lib/postgresql/*/bin/postgres'; }
have_module() { /usr/bin/python3 -c "import $1"; }

look_for_build() {
	need gcc have_command cc
	need libc6-dev have_header stdio.h
	need make have_command make
	need pkg-config have_command pkg-config
	need libpq-dev pkg-config --exists libpq
	need libssl-dev pkg-config --exists openssl
	need zlib1g-dev pkg-config --exists zlib
	need libzstd-dev pkg-config --exists libzstd
	need liblz4-dev pkg-config --exists liblz4
}

look_for_demo() {
	look_for_build
	need postgresql have_server
}

look_for_check() {
	look_for_demo
	need check pkg-config --exists check
	need python3 test -x /usr/bin/python3
	need python3-pytest have_module pytest
	need python3-pytest-xdist have_module xdist
	need openssl have_command openssl
	need util-linux have_command setpriv
}

look_for_matrix() {
	look_for_check
	need npm have_command npm
}

look_for_bench() {
	look_for_check
	need rsync have_command rsync
}

# Sets `as_root` to what stands before a command so that root runs it; fails when there is no way.
find_root() {
	if [ "$(id -u)" -eq 0 ]; then
		as_root=()
	elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
		as_root=(sudo -n)
	else
		return 1
	fi
}

apt() {
	# Diagnostics on stderr: the standard output of make belongs to the tests.
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 "$@" >&2
}

# Debian's server package makes a cluster "main" and starts it when it is installed for the first time.  We only want
# the programs, and leave nothing running, so this is switched off for as long as our own installation lasts.
no_main_cluster() {
	apt install --no-install-recommends postgresql-common
	off=/etc/postgresql-common/createcluster.d/pgr-tests.conf
	trap '"${as_root[@]}" rm -f "$off"' EXIT
	"${as_root[@]}" mkdir -p "${off%/*}"
	echo 'create_main_cluster = false' | "${as_root[@]}" tee "$off" >/dev/null
}

install_missing() {
	echo "installing: ${missing[*]}" >&2
	# A repository that does not answer need not be one that we need: apt-get install decides.
	apt update || true
	if [[ " ${missing[*]} " == *" postgresql "* ]]; then
		no_main_cluster
	fi
	apt install --no-install-recommends "${missing[@]}"
}

[ $# -eq 1 ] || usage
case $1 in
build) look_for_build ;;
demo) look_for_demo ;;
check) look_for_check ;;
matrix) look_for_matrix ;;
bench) look_for_bench ;;
*) usage ;;
esac

[ ${#missing[@]} -gt 0 ] || exit 0
if command -v apt-get >/dev/null && find_root; then
	install_missing
else
	echo "These packages (Debian's names) are missing; please install them and try again:" >&2
	echo "    sudo apt-get install ${missing[*]}" >&2
	exit 1
fi
