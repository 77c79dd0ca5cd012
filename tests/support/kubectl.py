"""Stands in for kubectl and a cluster with one CronJob: answers the few commands that pages show, and refuses others.

A Job's name is taken once, as the API server sees to it: ``jobs`` in $HOME has those that were made.
"""

from __future__ import annotations

import sys
from pathlib import Path

CRON_JOBS = """\
apiVersion: v1
items:
- apiVersion: batch/v1
  kind: CronJob
  metadata:
    creationTimestamp: "2026-03-02T10:11:12Z"
    generation: 1
    labels:
      app: shop
    name: report
    namespace: prod
    resourceVersion: "4711"
    uid: 5a1f3f8e-7f0c-4c53-9a39-0d5c0f3e8a11
  spec:
    concurrencyPolicy: Forbid
    failedJobsHistoryLimit: 1
    jobTemplate:
      metadata:
        creationTimestamp: null
      spec:
        template:
          metadata:
            creationTimestamp: null
          spec:
            containers:
            - command:
              - bin/report
              - --all
              image: example.com/shop:1.4
              imagePullPolicy: IfNotPresent
              name: report
              resources: {}
            dnsPolicy: ClusterFirst
            restartPolicy: OnFailure
            schedulerName: default-scheduler
    schedule: 0 9 * * 1-5
    successfulJobsHistoryLimit: 3
    suspend: false
    timeZone: Europe/London
  status: {}
kind: List
metadata:
  resourceVersion: ""
"""
_PATCH = ["patch", "cronjob", "report", "-n", "prod", "-p"]


def main(words: list[str]) -> int:
    match words:
        case ["get", "cronjobs", "-A", "-o", "yaml"]:
            print(CRON_JOBS, end="")
        case [*patch, '{"spec": {"suspend": true}}' | '{"spec": {"suspend": false}}'] if patch == _PATCH:
            print("cronjob.batch/report patched")
        case ["create", "job", name, "--from=cronjob/report", "-n", "prod"]:
            with (Path.home() / "jobs").open("a+") as jobs:
                jobs.seek(0)
                if f"{name}\n" in jobs:
                    print(f'error: failed to create job: jobs.batch "{name}" already exists', file=sys.stderr)
                    return 1
                jobs.write(f"{name}\n")
            print(f"job.batch/{name} created")
        case _:
            print(f"nobody has taught this kubectl: {words}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
