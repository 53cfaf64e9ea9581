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
#   BASELINE=latest                                   # last night's run is compared with; '' or a run folder
#   OPTIONS=(--fail-below accuracy=0.85)              # more options of inbox or score
#   REPORT_OPTIONS=(--keep-days 90)                   # more options of report
#   TIME_LIMIT=6h                                     # as timeout(1) takes it; the next call goes on where this one was
#   REPORT_TIME_LIMIT=30m                             # the same for the report, which is wanted after a bad night too
#   PING_URL=https://hc.example.org/ping/UUID         # told /start, then the exit code (/0 is success)
#
# Exit codes are those of batchscore; 0 also where the drop folder holds nothing new, 124 if the time was up, 78 if the
# configuration cannot be used. An INPUT that is not there is 66: a night without its file is no good night, and the report shows
# it as one without input. 75, another call is at work, is no failure of the night: the monitor is told /log, which changes no
# state, and that call tells the end.
set -euo pipefail

fail() {
  echo "nightly.sh: $1" >&2
  trap - EXIT
  exit 78
}

config=${1-}
case $config in
  '') fail "name the configuration: nightly.sh /absolute/path/nightly.conf [YYYY-MM-DD]" ;;
  /*) ;;
  *) fail "$config is no absolute path; cron runs elsewhere" ;;
esac
[ -f "$config" ] && [ -r "$config" ] || fail "the configuration $config is not there or cannot be read; the head of $0 says what stands in it"
DATE=${2:-$(date +%F)}
BATCHSCORE=$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/batchscore
OPTIONS=() REPORT_OPTIONS=() TIME_LIMIT=12h REPORT_TIME_LIMIT=30m INBOX='' INPUT='' PING_URL='' MODEL='' OUTPUT='' BASELINE=latest
trap 'fail "the configuration $config does not run as shell; see the line above"' EXIT
# shellcheck source=/dev/null
source "$config"
trap - EXIT

for name in BATCHSCORE MODEL OUTPUT INBOX INPUT; do
  case ${!name} in
    /* | '') ;;
    *) fail "$name=${!name} in $config is no absolute path" ;;
  esac
done
case $BASELINE in
  /* | '' | latest) ;;
  *) fail "BASELINE=$BASELINE in $config is neither latest nor an absolute path" ;;
esac
[ -n "$MODEL" ] && [ -n "$OUTPUT" ] || fail "$config must set MODEL and OUTPUT"
[ -n "$INBOX" ] || [ -n "$INPUT" ] || fail "$config must set INBOX or INPUT"
[ -x "$BATCHSCORE" ] || fail "$BATCHSCORE is not there; set BATCHSCORE in $config"

ping() { # a monitor that cannot be reached is no reason to fail a night
  [ -z "$PING_URL" ] || curl -fsS -m 10 --retry 3 -o /dev/null "$PING_URL$1" || true
}

limited() { # DURATION COMMAND...
  exec timeout --kill-after=30 "$@"
}

compared=(${BASELINE:+--baseline "$BASELINE"})
night() { # replaces its shell; timeout(1) hands a SIGTERM on, and batchscore keeps what was scored
  if [ -n "$INBOX" ]; then
    limited "$TIME_LIMIT" "$BATCHSCORE" inbox "$INBOX" --model "$MODEL" --output "$OUTPUT" --skip-empty --quiet "${compared[@]}" "${OPTIONS[@]}"
  else
    limited "$TIME_LIMIT" "$BATCHSCORE" score "${INPUT//\$DATE/$DATE}" --model "$MODEL" --output "$OUTPUT/$DATE" --date "$DATE" --quiet "${compared[@]}" "${OPTIONS[@]}"
  fi
}

said=$(mktemp)
trap 'rm -f "$said"' EXIT
ping /start
child=
trap 'kill -TERM "$child" || true; wait "$child" || true; ping /143; exit 143' TERM INT
in_background() { # COMMAND...; what it says goes to $said, its exit code is ours
  "$@" >"$said" 2>&1 &
  child=$!
  wait "$child"
}

code=0
in_background night || code=$?
if [ "$code" = 99 ]; then
  code=0
elif [ "$code" != 0 ]; then
  cat "$said" >&2
  [ "$code" != 124 ] || echo "nightly.sh: stopped after $TIME_LIMIT; the next call goes on from there" >&2
fi
# The page is wanted after a bad night too.
if [ -d "$OUTPUT" ]; then
  in_background limited "$REPORT_TIME_LIMIT" "$BATCHSCORE" report "$OUTPUT" --quiet "${REPORT_OPTIONS[@]}" || {
    report=$?
    if [ "$report" != 66 ]; then # 66: no run yet, as on a first night without files
      cat "$said" >&2
      [ "$report" != 124 ] || echo "nightly.sh: the report was stopped after $REPORT_TIME_LIMIT" >&2
      [ "$code" != 0 ] || code=$report
    fi
  }
fi
trap - TERM INT
if [ "$code" = 75 ]; then ping /log; else ping "/$code"; fi
exit "$code"
