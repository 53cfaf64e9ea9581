#!/usr/bin/env bash
# batchscore out of its image, for every job that wants the path of a command: BATCHSCORE= in nightly.conf,
# BATCHSCORE_COMMAND of the Airflow DAGs, ExecStart= of a service, or a shell.
#
#   BATCHSCORE_IMAGE=batchscore             # the image, best with its digest
#   BATCHSCORE_READS=/srv/export:/srv/models   # folders that it may read, one after the other as in PATH
#   BATCHSCORE_WRITES=/srv/scored              # folders that it may also write to; an inbox is one of them
#   BATCHSCORE_ENGINE=docker                # or podman
#   BATCHSCORE_ENGINE_OPTIONS='--gpus all'  # more options of its `run`
#
# The folders have the same paths inside, so commands, settings and reports need not be changed; all are absolute and exist.
# The process is the caller's user, writes nowhere else and has no network. Exit codes are batchscore's; 125 to 127 are the
# engine's. SIGTERM and SIGINT are passed on. If this script is killed the container goes on, and the next call is 75.
set -euo pipefail

mounts=()
mount_each() { # FOLDERS [,readonly]
  local folder
  local -a folders
  IFS=: read -ra folders <<<"$1"
  for folder in ${folders[@]+"${folders[@]}"}; do
    [[ $folder == /* && -d $folder && $folder != *,* ]] || {
      echo "batchscore.sh: $folder is no absolute path of a folder without a comma" >&2
      exit 78
    }
    mounts+=(--mount "type=bind,source=$folder,target=$folder${2-}")
  done
}
mount_each "${BATCHSCORE_READS-}" ,readonly
mount_each "${BATCHSCORE_WRITES-}"
for name in $(compgen -e BATCHSCORE_); do # options by their variables
  case $name in
    BATCHSCORE_IMAGE | BATCHSCORE_READS | BATCHSCORE_WRITES | BATCHSCORE_ENGINE | BATCHSCORE_ENGINE_OPTIONS) ;;
    *) mounts+=(--env "$name") ;;
  esac
done
IFS=' ' read -ra more <<<"${BATCHSCORE_ENGINE_OPTIONS-}"

exec "${BATCHSCORE_ENGINE:-docker}" run --rm --init --interactive --read-only --tmpfs /tmp --network none --cap-drop ALL \
  --security-opt no-new-privileges --user "$(id -u):$(id -g)" ${mounts[@]+"${mounts[@]}"} ${more[@]+"${more[@]}"} \
  "${BATCHSCORE_IMAGE:-batchscore}" "$@"
