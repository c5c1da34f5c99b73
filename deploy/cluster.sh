#!/usr/bin/env bash
# Three nodes on loopback, to try RangeDB and to break it: kill one and watch the others go on.
# Ctrl-C stops those that still run and waits until they have.
#
#   deploy/cluster.sh path/to/rangedb
#
# Data and logs stay in ./cluster (RANGEDB_CLUSTER_DIR overrides it); started again, the nodes go on
# from there. Needs bash 5.1.
set -euo pipefail
# Each node gets a process group of its own: Ctrl-C must reach this script alone, which then stops
# the nodes one time and in good order.
set -m

rangedb=${1:?usage: deploy/cluster.sh path/to/rangedb}
directory=${RANGEDB_CLUSTER_DIR:-./cluster}
nodes=(1 2 3)
peers=127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103
endpoints=127.0.0.1:8101,127.0.0.1:8102,127.0.0.1:8103

# pid -> number of the node.
declare -A running=()

# The command line of a node, into `command`: the same at every start.
command_of() {
    local node=$1
    command=("$rangedb" server
        --peer-address "127.0.0.1:710$node" --client-address "127.0.0.1:810$node"
        --status-address "127.0.0.1:910$node" --data-dir "$directory/n$node"
        --peers "$peers" --cluster-init)
}

start() {
    local node=$1 command
    command_of "$node"
    "${command[@]}" </dev/null >>"$directory/n$node.log" 2>&1 &
    running[$!]=$node
    echo "n$node: pid $!, log $directory/n$node.log, http://127.0.0.1:910$node/metrics"
}

stop() {
    # A second Ctrl-C must not cut the first one short.
    trap '' INT TERM HUP
    local pid
    for pid in "${!running[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    for pid in "${!running[@]}"; do
        wait "$pid" 2>/dev/null || true
    done
}

# Says which node ended and how to have it back, and forgets it.
report_ended() {
    local pid=$1 status=$2 node=${running[$1]} command
    command_of "$node"
    unset "running[$pid]"
    echo "n$node ended with status $status; the end of its log:" >&2
    tail -n 5 "$directory/n$node.log" | sed 's/^/  /' >&2
    echo "start it again with: ${command[*]}" >&2
}

trap 'echo; echo "stopping"; stop; exit 130' INT TERM HUP
mkdir -p "$directory"
for node in "${nodes[@]}"; do
    start "$node"
done
echo
echo "Stop all with Ctrl-C. In another shell:"
echo "  export RANGEDB_ENDPOINTS=$endpoints"
echo "  $rangedb admin cluster status"

while ((${#running[@]} > 0)); do
    status=0
    wait -n -p ended "${!running[@]}" || status=$?
    report_ended "$ended" "$status"
done
echo "no node is left running" >&2
exit 1
