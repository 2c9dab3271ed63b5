# The one entry to daily work; each recipe is a thin wrapper around a command that can be typed without `just`.

# Lists the recipes.
default:
    @just --list

# The gate that changes nothing: layout, lints, tidiness.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo test -p millstream-tests --test tidy

# Every test of the workspace.
test:
    cargo test --workspace

# The simulation; `just sim 42` replays one seed, `just sim 1000 500` runs 500 from the thousandth on.
sim seed="" seeds="":
    MILLSTREAM_SEED={{ seed }} MILLSTREAM_SEEDS={{ seeds }} cargo test -p millstream-tests --release --test simulation every

# Crashes a small story at every one of its points; `just crash 117` at that one.
crash point="all":
    MILLSTREAM_CRASH_POINTS={{ point }} cargo test -p millstream-tests --release --test crash

# Fuzzes a target of `fuzz/` until it is stopped.
fuzz target:
    cargo fuzz run -s none --features libfuzzer {{ target }}

# Measures this machine and the broker on it.
bench *args:
    cargo run --release -p millstream-bench -- {{ args }}

# The memory rules of the code that has `unsafe` and needs no kernel.
miri:
    cargo +nightly miri test -p millstream-engine --target-dir target/miri -- buffer mailbox

# Every interleaving of the mailbox's small cases.
loom:
    RUSTFLAGS="--cfg loom" cargo test -p millstream-engine --lib --release --target-dir target/loom loom_

# Stock Kafka clients against a release build; `just clients --client java --codec zstd` is one of them.
clients *args:
    cargo build --release
    tests/clients/run --broker target/release/millstream {{ args }}

# Kills a release build under clients of both protocols, as often as is said.
kills count="1000":
    cargo build --release
    tests/clients/kills --broker target/release/millstream {{ count }}

# Records histories of clients under as many kills, and checks them against models of a log and of a queue.
histories kills="100":
    cargo build --release
    tests/clients/histories --broker target/release/millstream {{ kills }}

# The real process short of disk, descriptors, memory or time, beside thousands of connections and slow peers; some of it needs root.
hardship *args:
    cargo build --release
    tests/clients/hardship --broker target/release/millstream {{ args }}

# Power losses on a real file system, as many as is said, under clients of both protocols; needs root.
powerloss count="20":
    cargo build --release
    tests/clients/powerloss --broker target/release/millstream {{ count }}

# A mixed load on a release build for as many hours, with an eye on memory, descriptors and latencies.
soak hours="2":
    cargo build --release
    tests/clients/soak --broker target/release/millstream --hours {{ hours }}

# What a change has to pass.
ci:
    .ci/run
