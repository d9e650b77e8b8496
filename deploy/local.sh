#!/usr/bin/env bash
# A farpool cluster on this machine, to try it out: a coordinator, and an agent for each simulated host.
set -euo pipefail

usage() {
    cat <<'END'
Runs a farpool cluster on this machine, to try it out.

Usage: deploy/local.sh [AGENTS] [--slots N]

  AGENTS     number of agents, named node1, node2, ... (default: 2)
  --slots N  worker processes per agent (default: 2)

It prints the line that tells programs where the cluster is:
  export FARPOOL_ADDRESS=http://127.0.0.1:PORT
It ends on Ctrl-C, at the end of its input (Ctrl-D; /dev/null does not count), or with the program that started it.
Detached jobs are kept while it runs, or permanently in the directory given by FARPOOL_JOURNAL.

Binaries come from the directory given by FARPOOL_BINARIES; otherwise, in farpool's source tree, from a release build by
cargo; otherwise from PATH.
END
}

fail() {
    printf 'local.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

is_number() {
    [[ $1 =~ ^[1-9][0-9]{0,3}$ ]]
}

agents=2
slots=2
while (($# > 0)); do
    case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        --slots) slots=${2-} && shift ;;
        --slots=*) slots=${1#*=} ;;
        -*) fail "unknown option $1: see --help" 2 ;;
        *) agents=$1 ;;
    esac
    shift || fail "--slots needs a number" 2
done
is_number "$agents" || fail "AGENTS must be a number from 1 to 9999, not '$agents'" 2
is_number "$slots" || fail "--slots must be a number from 1 to 9999, not '$slots'" 2

find_binaries() {
    local root
    if [[ -n ${FARPOOL_BINARIES-} ]]; then
        PATH=$FARPOOL_BINARIES:$PATH
        return
    fi
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    if [[ -f $root/coordinator/Cargo.toml ]] && command -v cargo >/dev/null; then
        echo "local.sh: building the binaries, unless they are up to date" >&2
        (cd "$root" && cargo build --quiet --release --bin farpool-coordinator --bin farpool-agent --bin farpool) ||
            fail "cannot build the binaries"
        PATH=${CARGO_TARGET_DIR:-$root/target}/release:$PATH
    fi
}

find_binaries
for binary in farpool-coordinator farpool-agent; do
    command -v "$binary" >/dev/null ||
        fail "cannot find $binary in PATH: build it in farpool's source tree, or set FARPOOL_BINARIES to its directory"
done

folder=$(mktemp -d "${TMPDIR:-/tmp}/farpool-local.XXXXXX")
daemons=()

any_running() {
    local pid
    for pid in "${daemons[@]}"; do
        ! kill -0 "$pid" 2>/dev/null || return 0
    done
    return 1
}

# After the first SIGTERM the daemons let open work finish, after the second they end at once; SIGKILL is the last resort.
stop() {
    local signal pid
    trap '' INT TERM HUP
    for signal in TERM TERM KILL; do
        for pid in "${daemons[@]}"; do
            kill "-$signal" "$pid" 2>/dev/null || true
        done
        for _ in {1..20}; do
            any_running || break 2
            sleep 0.05
        done
    done
    wait
    rm -rf "$folder"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Starts a daemon that ends with this script, even if the script is killed.
start() {
    local log=$folder/$1.log
    shift
    if command -v setpriv >/dev/null; then
        set -- setpriv --pdeathsig KILL "$@"
    fi
    "$@" </dev/null >"$log" 2>&1 &
    daemons+=("$!")
}

# Waits for a line that matches a pattern in a daemon's log, and prints the line.
wait_for_line() {
    local log=$folder/$1.log pid=$2 pattern=$3
    for _ in {1..400}; do
        grep -m1 "$pattern" "$log" && return
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.05
    done
    cat "$log" >&2
    fail "$1 did not start; its log is above"
}

# Settings in this shell's environment are not meant for all of these daemons.
unset FARPOOL_CONFIG FARPOOL_LISTEN FARPOOL_COORDINATOR FARPOOL_HOST FARPOOL_SLOTS FARPOOL_PROGRAMS \
    FARPOOL_LOG_FORMAT
start coordinator farpool-coordinator --listen 127.0.0.1:0 --programs "$folder/coordinator" \
    --journal "${FARPOOL_JOURNAL:-$folder/journal}"
listening=$(wait_for_line coordinator "${daemons[-1]}" "listening address=http://")
address=${listening##*=}
for ((number = 1; number <= agents; number++)); do
    start "node$number" farpool-agent --coordinator "$address" --slots "$slots" --host "node$number" \
        --programs "$folder/agents"
done
for ((number = 1; number <= agents; number++)); do
    wait_for_line "node$number" "${daemons[number]}" "connected to" >/dev/null
done

echo "local.sh: running; agents x slots: $agents x $slots. Ctrl-C ends it. Logs: $folder" >&2
echo "export FARPOOL_ADDRESS=$address"

# When its parent ends, this process gets another one.
has_parent() {
    local status
    status=$(<"/proc/$$/status") && [[ $status == *$'\n'PPid:$'\t'"$PPID"$'\n'* ]]
}

# Only the coordinator must keep running: agents may be drained.
while has_parent; do
    kill -0 "${daemons[0]}" 2>/dev/null || {
        tail "$folder"/*.log >&2
        fail "the coordinator exited unexpectedly; the end of every log is above"
    }
    if [[ /dev/stdin -ef /dev/null ]]; then
        sleep 0.5
        continue
    fi
    read_status=0
    read -r -t 0.5 || read_status=$?
    # Above 128: no line came within the time; otherwise the input has ended.
    ((read_status == 0 || read_status > 128)) || break
done
