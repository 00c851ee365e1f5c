#!/bin/sh
# check-man.sh PROGRAM MANPAGE: do --help and the man page know the same long options?  (TAP)
set -u
LC_ALL=C
export LC_ALL

prog=$1
page=$2
name=$(basename "$page" .1)
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT

echo 1..3

# An option's line in --help begins with it: "  -D, --directory=DIR  ..." or "      --no-sync  ...".
"$prog" --help >"$tmp/out" 2>"$tmp/err"
rc=$?
sed -nE 's/^ +(-[^ -], )?--([a-z][a-z0-9-]*).*/\2/p' "$tmp/out" | sort -u >"$tmp/help"

# An option's item in the page: ".It Fl D Ar dir , Fl -directory Ns = Ns Ar dir"; "\-" stands for "-".
sed -nE '/^\.It /{s/\\-/-/g;s/.* Fl -([a-z][a-z0-9-]*).*/\1/p;}' "$page" | sort -u >"$tmp/page"

failed=0
report() { # number, what, file with what is wrong
	if [ -s "$3" ]; then
		echo "not ok $1 - $2"
		sed 's/^/# /' "$3"
		failed=1
	else
		echo "ok $1 - $2"
	fi
}

{
	cat "$tmp/err"
	[ "$rc" -eq 0 ] || echo "exit status $rc"
	[ -s "$tmp/help" ] || echo "no options found in --help"
	awk 'length > 95 { print "longer than 95 characters: " $0 }' "$tmp/out"
} >"$tmp/bad"
report 1 "$name --help is in form" "$tmp/bad"

comm -23 "$tmp/help" "$tmp/page" | sed 's/^/missing in the page: --/' >"$tmp/missing"
report 2 "the man page has all options of $name --help" "$tmp/missing"

comm -13 "$tmp/help" "$tmp/page" | sed 's/^/not in --help: --/' >"$tmp/extra"
report 3 "$name --help has all options of the man page" "$tmp/extra"

exit $failed
