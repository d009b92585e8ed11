#!/bin/sh
# Runs spec files, each by a busted of its own and JOBS (3) at a time, for they wait more than
# they compute.  Prints a line for each, and at the end all that those say which failed.
# Usage: specs.sh CPATH FILE...
set -u
cpath=$1
shift
logs=$(mktemp -d)
export cpath logs
# shellcheck disable=SC2016
printf '%s\n' "$@" | xargs -P "${JOBS:-3}" -I{} sh -c '
  log=$logs/$(basename {})
  if busted --cpath="$cpath" {} >"$log" 2>&1; then
    echo "{}: $(grep -hE " success(es)? / " "$log")"
  else
    echo "{}: FAILED"
    { echo "=== {}"; cat "$log"; } >>"$logs/failed.log"
    echo {} >>"$logs/failed"
  fi'
failed=$(cat "$logs/failed" 2>/dev/null)
[ -z "$failed" ] || cat "$logs/failed.log"
rm -rf "$logs"
[ -z "$failed" ] || {
  echo "failed:" $failed
  exit 1
}
