#!/bin/sh
# Runs spec files, each by a busted of its own and JOBS (3) at a time, for they wait more than
# they compute.  Prints a line for each that passes, and all that the others say.
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
    cat "$log"
    echo {} >>"$logs/failed"
  fi'
failed=$(cat "$logs/failed" 2>/dev/null)
rm -rf "$logs"
[ -z "$failed" ] || {
  echo "failed:" $failed
  exit 1
}
