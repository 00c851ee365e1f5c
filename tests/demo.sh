#!/usr/bin/env bash
# The body of `make demo`: a primary with running writes, a standby seeded by pgr-basebackup that streams from it, and
# pgr-receivewal receiving the WAL beside it.  Everything lives in one temporary directory and is gone at the end.
#
# PGR_BIN_DIR: where the programs are (default build/plain).
set -euo pipefail

programs=$(cd "$(dirname "$0")/.." && realpath "${PGR_BIN_DIR:-build/plain}")
for variable in "${!PG@}"; do # nothing of the caller's settings leads the demo to another server
	unset "$variable"
done

die() {
	echo "demo: $*" >&2
	exit 1
}

# ---- what is printed

bold='' plain=''
if [ -t 1 ]; then
	bold=$'\e[1m' plain=$'\e[0m'
fi

step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }

# show COMMAND...: prints a command as one would type it, and runs it.
show() {
	local word line=
	for word in "$@"; do
		case $word in
		*[!A-Za-z0-9_./=:@%+,-]*) line+=" '$word'" ;;
		*) line+=" $word" ;;
		esac
	done
	printf '  $%s\n' "$line"
	"${as_user[@]}" "$@" 2>&1 | sed 's/^/    /'
}

# quietly COMMAND...: runs it, and shows what it said only when it fails.
quietly() {
	"${as_user[@]}" "$@" >command.log 2>&1 || {
		cat command.log >&2
		die "failed: $*"
	}
}

# ---- the place

# PostgreSQL does not run as root: then everything runs as the user of Debian's package.
as_user=()
if [ "$(id -u)" -eq 0 ]; then
	id postgres >/dev/null 2>&1 || die "there is no user postgres to run the servers as"
	as_user=(setpriv --reuid postgres --regid postgres --init-groups)
fi
server_programs=$(find /usr/lib/postgresql/*/bin -name postgres -printf '%h\n' 2>/dev/null | sort -V | tail -n 1)
[ -n "$server_programs" ] || die "PostgreSQL is not installed (Debian: apt-get install postgresql)"
[ -x "$programs/pgr-basebackup" ] || die "$programs/pgr-basebackup is not there: run make first"

work=$(mktemp -d /tmp/pgr-demo.XXXXXX)
cd "$work"
background=()

end() { # PID of a background job
	kill "$1" 2>/dev/null || true
	wait "$1" 2>/dev/null || true
}

clean_up() {
	local directory pid
	for pid in "${background[@]}"; do
		end "$pid"
	done
	for directory in standby primary; do
		if [ -e "$directory/postmaster.pid" ]; then
			"${as_user[@]}" pg_ctl -D "$directory" -m immediate stop >/dev/null
		fi
	done
	cd /
	rm -rf "$work"
} 2>/dev/null
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir bin
cp "$programs/pgr-basebackup" "$programs/pgr-receivewal" bin # the clone may be where the other user cannot look
export PATH="$work/bin:$server_programs:$PATH" HOME=$work
if [ ${#as_user[@]} -gt 0 ]; then
	chown -R postgres: "$work"
fi
chmod 755 bin bin/*

free_port() {
	local port=$1
	while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
		port=$((port + 1))
	done
	echo "$port"
}

# until_true WHAT COMMAND...: waits until the command succeeds.
until_true() {
	local what=$1 tries
	shift
	for ((tries = 0; tries < 600; tries++)); do
		if "$@"; then
			return
		fi
		sleep 0.1
	done
	die "waited in vain until $what"
}

sql() { # SERVER QUERY: the bare result
	"${as_user[@]}" psql -XAtq -h "$work" -p "${port[$1]}" -U postgres -d shop -c "$2"
}

# ask SERVER QUERY: shows a query and its answer as psql does.
ask() {
	printf '  %s=# %s\n' "$1" "$2"
	"${as_user[@]}" psql -X -h "$work" -p "${port[$1]}" -U postgres -d shop -P footer=off -c "$2" | sed 's/^/    /'
}

is_true() { [ "$(sql "$1" "$2")" = t ]; }

start_server() { # DIRECTORY
	quietly pg_ctl -w -D "$1" -l "$1.log" \
		-o "-c port=${port[$1]} -c listen_addresses=127.0.0.1 -c unix_socket_directories=$work" start
}

declare -A port
port[primary]=$(free_port 54321)
port[standby]=$(free_port $((port[primary] + 1)))

# ---- the demo

step "1. A primary with a database that is being written to ($(postgres --version))"
quietly initdb -D primary -U postgres -A trust -E UTF8 --locale=C -k
cat >>primary/postgresql.conf <<-END
	wal_level = replica
	shared_buffers = 64MB
	max_wal_size = 4GB
	wal_keep_size = 1GB
END
start_server primary
quietly createdb -h "$work" -p "${port[primary]}" -U postgres shop
quietly psql -X -h "$work" -p "${port[primary]}" -U postgres -d shop -v ON_ERROR_STOP=1 -c "
	CREATE ROLE replicator LOGIN REPLICATION;
	CREATE TABLE customers (id int PRIMARY KEY, name text, balance numeric(12,2) NOT NULL DEFAULT 0);
	INSERT INTO customers SELECT i, md5(i::text) FROM generate_series(1, 200000) i;
	CREATE TABLE orders (id bigserial PRIMARY KEY, customer int REFERENCES customers, amount numeric(12,2), at timestamptz);
	INSERT INTO orders (customer, amount, at)
		SELECT 1 + i % 200000, i % 977 / 10.0, now() - i * interval '1 s' FROM generate_series(1, 400000) i;
	CREATE INDEX ON orders (customer);"
cat >orders.sql <<-END
	\\set customer random(1, 200000)
	\\set amount random(1, 10000)
	BEGIN;
	INSERT INTO orders (customer, amount, at) VALUES (:customer, :amount / 100.0, now());
	UPDATE customers SET balance = balance + :amount / 100.0 WHERE id = :customer;
	COMMIT;
END
chmod 644 orders.sql
"${as_user[@]}" pgbench -h "$work" -p "${port[primary]}" -U postgres -n -c 2 -R 300 -T 600 -f orders.sql shop \
	>pgbench.log 2>&1 &
writer=$!
background+=("$writer")
orders=$(sql primary "SELECT count(*) FROM orders")
echo "  $(sql primary "SELECT pg_size_pretty(pg_database_size('shop'))") in the database; $orders orders, about 300 more each second"

step "2. pgr-basebackup seeds a standby, while the writes go on"
show pgr-basebackup -h 127.0.0.1 -p "${port[primary]}" -U replicator -D standby -R -c fast -P -v

step "3. The standby starts and streams; pgr-receivewal keeps the WAL beside it"
start_server standby
quietly mkdir archive
show pgr-receivewal -h 127.0.0.1 -p "${port[primary]}" -U replicator --slot archive --create-slot
echo "  \$ pgr-receivewal -h 127.0.0.1 -p ${port[primary]} -U replicator --slot archive -D archive --synchronous &"
"${as_user[@]}" pgr-receivewal -h 127.0.0.1 -p "${port[primary]}" -U replicator --slot archive -D archive \
	--synchronous >receivewal.log 2>&1 &
receiver=$!
background+=("$receiver")
until_true "both stream" is_true primary "SELECT count(*) = 2 FROM pg_stat_replication WHERE state = 'streaming'"
until_true "both have reported" is_true primary "SELECT bool_and(flush_lsn IS NOT NULL) FROM pg_stat_replication"
ask primary "SELECT application_name, state, sent_lsn, flush_lsn, replay_lsn FROM pg_stat_replication;"

step "4. The writes stop: do both have the same?"
until_true "orders have come in" is_true primary "SELECT count(*) > $orders + 500 FROM orders"
end "$writer"
until_true "the writers are gone" is_true primary \
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'pgbench'"
lsn=$(sql primary "SELECT pg_current_wal_lsn()")
until_true "the standby has replayed it all" is_true standby "SELECT pg_last_wal_replay_lsn() >= '$lsn'"
query="SELECT (SELECT count(*) FROM customers) AS customers, (SELECT count(*) FROM orders) AS orders,
    (SELECT sum(balance) FROM customers) AS balances;"
ask primary "$query"
ask standby "$query"
[ "$(sql primary "$query")" = "$(sql standby "$query")" ] || die "primary and standby differ"
echo "  The same rows; $(($(sql primary "SELECT count(*) FROM orders") - orders)) of the orders were committed after the standby was begun."

step "5. Is the WAL that pgr-receivewal wrote the server's own, byte for byte?"
segment=$(sql primary "SELECT pg_walfile_name(pg_current_wal_lsn())")
quietly psql -X -h "$work" -p "${port[primary]}" -U postgres -d shop -c "SELECT pg_switch_wal()"
until_true "segment $segment is complete" test -e "archive/$segment"
show sha256sum "primary/pg_wal/$segment" "archive/$segment"
show cmp "primary/pg_wal/$segment" "archive/$segment"
echo "  No difference."

step "6. Everything is stopped and removed"
end "$receiver"
quietly pg_ctl -w -D standby -m fast stop
quietly pg_ctl -w -D primary -m fast stop
echo "  Done."
