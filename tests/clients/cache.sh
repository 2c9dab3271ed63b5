# For the `install` and `client` scripts, which source it: where what they install is kept, and how they give up.
# Nothing here is needed to build or to run Millstream.

# One folder for all clients; it may be deleted at any time.
cache=${MILLSTREAM_CLIENTS:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/target/clients}

# skip WHY: ends an `install` that cannot be carried out here. Whatever else fails is a failure.
skip() {
    echo "$*" >&2
    exit 77
}

# need COMMAND..: skips unless all of them are there.
need() {
    local command
    for command in "$@"; do
        command -v "$command" >/dev/null || skip "$command is not installed"
    done
}

# fresh FOLDER FILE..: whether FOLDER was finished from these very files. `finish` with the same arguments says that it is.
fresh() {
    [ -f "$1/.from" ] && cat "${@:2}" | cmp -s - "$1/.from"
}

finish() {
    cat "${@:2}" >"$1/.from"
}
