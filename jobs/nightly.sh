#!/usr/bin/env bash
# The whole night in one line for cron: score what lies in a drop folder (or one path), hold it against gates, write the
# trend report. Silent on success, so that cron's mail means something; the reason on stderr otherwise.
#
#   30 2 * * *  /opt/batchscore/jobs/nightly.sh /etc/batchscore/nightly.conf
#
# The configuration file is read as shell; every path in it is absolute:
#
#   BATCHSCORE=/opt/batchscore/.venv/bin/batchscore   # the installed command
#   MODEL=/srv/models/reviews                         # a bundle
#   OUTPUT=/srv/scored                                # run folders, and report.html over all of them
#   INBOX=/srv/inbox                                  # a drop folder ... or instead of it
#   INPUT='/srv/export/reviews-$DATE.parquet'         # one file; $DATE is the local date, YYYY-MM-DD
#   OPTIONS=(--fail-under accuracy=0.85)              # more options of inbox or score
#   REPORT_OPTIONS=(--keep-days 90)                   # more options of report
#   TIME_LIMIT=6h                                     # as timeout(1) takes it; the next call goes on where this one was
#   PING_URL=https://hc.example.org/ping/UUID         # told /start, success, or the exit code
#
# Exit codes are those of batchscore; 0 also where the drop folder holds nothing new, 124 if the time was up. An INPUT that is
# not there is 66: a night without its file is no good night.
set -euo pipefail

config=${1:?"usage: nightly.sh /absolute/path/nightly.conf [YYYY-MM-DD]"}
DATE=${2:-$(date +%F)}
BATCHSCORE=$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/batchscore
OPTIONS=() REPORT_OPTIONS=() TIME_LIMIT=12h INBOX='' INPUT='' PING_URL='' MODEL='' OUTPUT=''
# shellcheck source=/dev/null
source "$config"

fail() {
  echo "nightly.sh: $1" >&2
  exit 78
}

for name in BATCHSCORE MODEL OUTPUT INBOX INPUT; do
  case ${!name} in
    /* | '') ;;
    *) fail "$name=${!name} in $config is no absolute path" ;;
  esac
done
[ -n "$MODEL" ] && [ -n "$OUTPUT" ] || fail "$config must set MODEL and OUTPUT"
[ -n "$INBOX" ] || [ -n "$INPUT" ] || fail "$config must set INBOX or INPUT"
[ -x "$BATCHSCORE" ] || fail "$BATCHSCORE is not there; set BATCHSCORE in $config"

ping() { # a monitor that cannot be reached is no reason to fail a night
  [ -z "$PING_URL" ] || curl -fsS -m 10 --retry 3 -o /dev/null "$PING_URL$1" || true
}

night() { # replaces its shell; timeout(1) hands a SIGTERM on, and batchscore keeps what was scored
  local limited=(timeout --kill-after=30 "$TIME_LIMIT")
  if [ -n "$INBOX" ]; then
    exec "${limited[@]}" "$BATCHSCORE" inbox "$INBOX" --model "$MODEL" --output "$OUTPUT" --skip-empty --quiet "${OPTIONS[@]}"
  else
    exec "${limited[@]}" "$BATCHSCORE" score "${INPUT//\$DATE/$DATE}" --model "$MODEL" --output "$OUTPUT/$DATE" --quiet "${OPTIONS[@]}"
  fi
}

said=$(mktemp)
trap 'rm -f "$said"' EXIT
ping /start
code=0
night >"$said" 2>&1 &
scoring=$!
trap 'kill -TERM "$scoring"; wait "$scoring" || true; ping /143; exit 143' TERM INT
wait "$scoring" || code=$?
trap - TERM INT
if [ "$code" = 99 ]; then
  code=0
elif [ "$code" != 0 ]; then
  cat "$said" >&2
  [ "$code" != 124 ] || echo "nightly.sh: stopped after $TIME_LIMIT; the next call goes on from there" >&2
fi
# The page is wanted after a bad night too.
if [ -d "$OUTPUT" ]; then
  "$BATCHSCORE" report "$OUTPUT" --quiet "${REPORT_OPTIONS[@]}" >"$said" 2>&1 || {
    report=$?
    if [ "$report" != 66 ]; then # 66: no run yet, as on a first night without files
      cat "$said" >&2
      [ "$code" != 0 ] || code=$report
    fi
  }
fi
ping "/$code"
exit "$code"
