#!/usr/bin/env bash
# jobs/nightly.sh under the real cron of Debian, with a line each minute: what is mailed after a good minute (nothing) and after
# a bad one (the reason). And the systemd units, as systemd-analyze sees them. Needs root in a sandbox (a container) with `cron`
# installed, and .venv as tests/run.sh makes it; takes three minutes. By hand: bash tests/cron.sh
#
# cron runs in a mount namespace of its own, with this crontab alone and a sendmail that keeps what it gets. Nothing of the
# machine's own cron is read or changed.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

skip() {
  echo "skipped: $1"
  exit 0
}

verify_units() { # with paths that are there, since the command of a unit must be
  command -v systemd-analyze >/dev/null || { echo "systemd units: skipped, there is no systemd-analyze"; return; }
  mkdir "$work/units"
  local unit
  for unit in jobs/systemd/*; do
    sed "s|/opt/batchscore/|$root/|g" "$unit" >"$work/units/${unit##*/}"
  done
  local told
  told=$(systemd-analyze verify "$work"/units/* 2>&1) && [ -z "$told" ] || { echo "systemd units: $told"; exit 1; }
  echo "systemd units: systemd-analyze verify has nothing to say"
  systemd-analyze security --offline=true "$work/units/batchscore.service" 2>/dev/null | tail -n 1 || true
}

if [ "${1-}" != inside ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  verify_units
  [ "$(id -u)" = 0 ] || skip "only root can start cron"
  [ -x /usr/sbin/cron ] || skip "there is no cron here; in a sandbox: apt-get install cron"
  unshare --mount --pid --fork true 2>/dev/null || skip "no mount namespace can be made here"
  [ -x .venv/bin/batchscore ] || skip "there is no .venv; run tests/run.sh first"
  unshare --mount --pid --fork --mount-proc --kill-child bash "$0" inside "$work"
  exit
fi

work=$2
mkdir -p "$work"/{in,out,empty,mail,tabs,sbin}
mount --make-rprivate /
mount --bind "$work/empty" /etc/cron.d
mount --bind /dev/null /etc/crontab
mount --bind "$work/tabs" /var/spool/cron/crontabs
mount -t tmpfs none /run
cp /usr/sbin/cron "$work/sbin/"
cat >"$work/sbin/sendmail" <<SH
#!/bin/sh
exec cat >"$work/mail/\$(date +%s.%N)"
SH
chmod +x "$work/sbin/sendmail"
mount --bind "$work/sbin" /usr/sbin

(cd tests && HF_HUB_OFFLINE=1 "$root/.venv/bin/python" -c \
  'import sys, pathlib, kill_runs; kill_runs.make_model(pathlib.Path(sys.argv[1]), "tiny")' "$work/model" 2>/dev/null)
cat >"$work/nightly.conf" <<CONF
BATCHSCORE=$root/.venv/bin/batchscore
MODEL=$work/model
OUTPUT=$work/out
INBOX=$work/in
OPTIONS=(--settle 0)
CONF
echo "MAILTO=root
PATH=/usr/local/bin:/usr/bin:/bin${PYTHONPATH:+
PYTHONPATH=$PYTHONPATH}
* * * * * bash $root/jobs/nightly.sh $work/nightly.conf; date +\\%s.\\%N >>$work/ended" >"$work/tabs/root"
chmod 600 "$work/tabs/root"
touch "$work/ended"
cron -f &

minute() { # wait until the line has run once more
  local before waited
  before=$(wc -l <"$work/ended")
  for ((waited = 0; waited < 180; waited++)); do
    [ "$(wc -l <"$work/ended")" = "$before" ] || { sleep 1; return; }
    sleep 1
  done
  echo "the line was not run within three minutes"
  exit 1
}
mails() { find "$work/mail" -type f | wc -l; }

printf 'text,label\nGood.,POSITIVE\nBad.,NEGATIVE\n' >"$work/in/good.csv"
minute
test -f "$work/in/done/good.csv" || { cat "$work"/mail/*; echo "good.csv was not scored"; exit 1; }
test -s "$work/out/report.html"
[ "$(mails)" = 0 ] || { cat "$work"/mail/*; echo "a good minute was mailed"; exit 1; }
echo "a minute with a good file: scored, report written, nothing mailed"
minute
[ "$(mails)" = 0 ] || { cat "$work"/mail/*; echo "a minute with nothing to do was mailed"; exit 1; }
echo "a minute with nothing new: nothing mailed"
printf 'text,label\n"never closed,POSITIVE\nx,y\n' >"$work/in/bad.csv"
minute
[ "$(mails)" = 1 ] || { echo "$(mails) mails after a bad minute"; exit 1; }
grep -q '^error: 1 of 1 files failed; the first, bad.csv: ' "$work"/mail/* || { cat "$work"/mail/*; exit 1; }
test -f "$work/in/failed/bad.csv.error.txt"
echo "a minute with a bad file: one mail,"
sed 's/^/    /' "$work"/mail/*
