#!/usr/bin/env bash
# Before the pod of a Ray worker ends: tells Ray, so that trainings save a state and leave, and waits for them.
#
# A preStop hook, whose time is the pod's terminationGracePeriodSeconds; 100 s at most.
set -uo pipefail

deadline=$((SECONDS + 100))
ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "the pod ends" \
    --deadline-remaining-seconds 100 || exit 0 # the head is gone, and the cluster with it
while [ "$SECONDS" -lt "$deadline" ] && grep --quiet --text '^ray::RayTrainWorker' /proc/[0-9]*/cmdline 2>/dev/null; do
    sleep 1
done
