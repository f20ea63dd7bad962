#!/usr/bin/env bash
# Tells Ray of a spot machine's notice, so that trainings save a state and leave the machine in time.
# Runs beside Ray on every spot machine; `ray up` starts it:
#
#   cluster/ray/spot_notice.sh aws|google HEAD_ADDRESS [NODE_ID]
#
# NODE_ID is this machine's node unless named.
set -euo pipefail

provider=$1 address=$2 node=${3:-}
metadata=${SPOT_METADATA_URL:-http://169.254.169.254}
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"

# Each prints the seconds that are left, and nothing before the notice.
aws() {
    local token answer ends
    token=$(curl --silent --fail --max-time 2 --request PUT "$metadata/latest/api/token" \
        --header 'X-aws-ec2-metadata-token-ttl-seconds: 60') || return 0
    answer=$(curl --silent --fail --max-time 2 "$metadata/latest/meta-data/spot/instance-action" \
        --header "X-aws-ec2-metadata-token: $token") || return 0 # 404 before the notice
    ends=$(sed -nE 's/.*"time" *: *"([^"]*)".*/\1/p' <<<"$answer")
    echo $(($(date --date "$ends" +%s) - $(date +%s)))
}
google() {
    local answer
    answer=$(curl --silent --fail --max-time 2 "$metadata/computeMetadata/v1/instance/preempted" \
        --header 'Metadata-Flavor: Google') || return 0
    if [ "$answer" = TRUE ]; then echo 30; fi
}

case $provider in
aws | google) ;;
*)
    echo "spot_notice.sh: no provider $provider; there are aws and google" >&2
    exit 2
    ;;
esac
while true; do
    left=$("$provider")
    if [ -n "$left" ]; then
        # The machine ends within the last seconds, and not after them.
        left=$((left > 15 ? left - 10 : 5))
        echo "$(date --iso-8601=seconds) this machine ends; Ray is told to leave it within $left s"
        ray drain-node --address "$address" ${node:+--node-id "$node"} \
            --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "spot notice of $provider" \
            --deadline-remaining-seconds "$left" && exit 0
    fi
    sleep 2
done
