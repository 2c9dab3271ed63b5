#!/usr/bin/env bash
# kcat against a real broker: 100,000 lines there and back, once more idempotently, then a kill in the middle.
#
#     tests/clients/kcat.sh target/debug/millstream
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: $0 BINARY" >&2
    exit 2
fi
if ! command -v kcat >/dev/null; then
    echo "skipped: kcat is not installed"
    exit 0
fi

binary=$(realpath "$1")
lines=100000
chunk_lines=2000
dir=$(mktemp -d)
broker=

end() {
    [ -z "$broker" ] || kill -KILL "$broker" 2>/dev/null || true
    rm -rf "$dir"
}
trap end EXIT

fail() {
    echo "failed: $*" >&2
    exit 1
}

# Starts the broker; sets `broker`, its process, and `address`.
start() {
    : >"$dir/stdout"
    "$binary" --data "$dir/data" --kafka 127.0.0.1:0 --amqp 127.0.0.1:0 --http 127.0.0.1:0 >"$dir/stdout" 2>"$dir/stderr" &
    broker=$!
    for _ in $(seq 300); do
        address=$(sed -n 's/^ready kafka=\([^ ]*\).*/\1/p' "$dir/stdout")
        [ -z "$address" ] || return 0
        kill -0 "$broker" 2>/dev/null || break
        sleep 0.1
    done
    cat "$dir/stderr" >&2
    fail "the broker does not start"
}

# produce TOPIC [OPTION...]: sends the lines of stdin; fails unless each was acknowledged.
produce() {
    kcat -P -b "$address" -t "$1" -p 0 -X acks=all -X message.timeout.ms=20000 -X retries=0 "${@:2}"
}

# consume TOPIC: everything there is, a line each.
consume() {
    timeout 60 kcat -C -q -b "$address" -t "$1" -p 0 -o beginning -e
}

seq -f 'line %.0f of a file that goes there and comes back' "$lines" >"$dir/sent"

start
produce whole <"$dir/sent" || fail "a line was not acknowledged"
consume whole >"$dir/received"
cmp "$dir/sent" "$dir/received" || fail "what came back is not what was sent"
echo "ok: $lines lines there and back"

produce once -X enable.idempotence=true -X retries=5 <"$dir/sent" || fail "a line was not acknowledged to an idempotent producer"
consume once | cmp "$dir/sent" - || fail "an idempotent producer's lines are not what was sent"
echo "ok: $lines lines of an idempotent producer"

# A chunk counts as acknowledged when its kcat says so. The kill comes while chunks are under way.
(sleep 0.5 && kill -KILL "$broker") &
killer=$!
split -l "$chunk_lines" -a 4 -d "$dir/sent" "$dir/chunk-"
: >"$dir/acknowledged"
chunks=0
killed=
while [ -z "$killed" ]; do
    for chunk in "$dir"/chunk-*; do
        # What a second round sends must differ from the first.
        sed "s/^/round $((chunks / (lines / chunk_lines))): /" "$chunk" >"$dir/sending"
        if ! produce killed <"$dir/sending" 2>>"$dir/kcat"; then
            killed=yes
            break
        fi
        cat "$dir/sending" >>"$dir/acknowledged"
        chunks=$((chunks + 1))
    done
done
wait "$killer" || fail "the broker ended before it was killed"
wait "$broker" 2>/dev/null || true
[ "$chunks" -gt 0 ] || fail "nothing was acknowledged before the kill"

start
consume killed >"$dir/received"
# Behind what was acknowledged may come what was stored of the last chunk.
head -c "$(stat -c %s "$dir/acknowledged")" "$dir/received" >"$dir/beginning"
cmp "$dir/acknowledged" "$dir/beginning" || fail "what was acknowledged is not there"
tail -c "+$(($(stat -c %s "$dir/acknowledged") + 1))" "$dir/received" >"$dir/rest"
head -c "$(stat -c %s "$dir/rest")" "$dir/sending" | cmp - "$dir/rest" || fail "what follows was not sent"
consume whole | cmp "$dir/sent" - || fail "what was written before is not there"
echo "ok: a kill after $chunks acknowledged chunks lost none of their $((chunks * chunk_lines)) lines"

kill -TERM "$broker"
wait "$broker" || fail "the broker did not stop well"
broker=
