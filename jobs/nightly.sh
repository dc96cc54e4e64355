#!/usr/bin/env bash
# The night, as cron or systemd starts it: an environment file → one `enrich run`.
#
# It becomes the command (exec), so that signals reach the command and the exit status is the command's own. It retries
# nothing: README.md beside it says what each status asks for. It calls the command and not make, which turns every
# failure into 2. A second start ends with 75 and one line: the command's own lock sees to that.
set -euo pipefail

# cron hands over next to nothing.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# Where there is no HOME, ~ is what the list of users says. Caches of compiled kernels go below it.
export HOME=~

fail() { # STATUS MESSAGE
    printf 'nightly.sh: %s\n' "$2" >&2
    exit "$1"
}

# Takes NAME=value lines, as systemd does. Nothing in them is expanded or run, and a pair of quotes around a value is
# taken off. What is set already wins: `BUDGET=20 jobs/nightly.sh` is a night with another budget.
read_settings() { # FILE
    local line name value number=0
    while IFS= read -r line || [[ -n $line ]]; do
        number=$((number + 1))
        line=${line#"${line%%[![:space:]]*}"}
        line=${line%"${line##*[![:space:]]}"}
        [[ -n $line && $line != [\#\;]* ]] || continue
        # The line itself is not shown: it may be a password.
        [[ $line =~ ^([A-Za-z_][A-Za-z0-9_]*)=(.*)$ ]] || fail 78 "$1, line $number: is not NAME=value"
        name=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
        if [[ $value =~ ^\"(.*)\"$ || $value =~ ^\'(.*)\'$ ]]; then value=${BASH_REMATCH[1]}; fi
        [[ -v $name ]] || export "$name=$value"
    done <"$1"
}

# The paths in the settings may be relative to the repository, wherever cron stands.
cd -- "$(dirname -- "$(readlink -f -- "$0")")/.."
settings=${ENRICH_ENV:-jobs/nightly.env}
[[ -r $settings ]] || fail 78 "$settings: no such environment file, or not for this user to read"
read_settings "$settings"
[[ -n ${INPUT:-} ]] || fail 78 "$settings: no INPUT: say which catalogue"
[[ -x .venv/bin/enrich ]] || fail 78 "$PWD/.venv/bin/enrich: not there: make setup model"

# A catalogue may be a secret before it is published; UMASK lets others in who must read the result.
umask "${UMASK:-077}" 2>/dev/null || fail 78 "$settings: UMASK=$UMASK is no mask such as 027"

flags=()
# What is not set is left to the command and its settings file.
flag() { # NAME VALUE
    [[ -z $2 ]] || flags+=("$1" "$2")
}
flag --output "${OUTPUT:-}"
flag --config "${CONFIG:-}"
flag --state "${STATE:-}"
flag --deadline "${DEADLINE:-}"
flag --budget "${BUDGET:-}"
flag --gpu-hour-price "${GPU_HOUR_PRICE:-}"
flag --max-rows "${MAX_ROWS:-}"
flag --priority "${PRIORITY:-}"
flag --log "${LOG_FORMAT:-}"
flag --metrics "${METRICS:-}"
# Split at blanks, never expanded.
read -ra extra <<<"${EXTRA:-}"

if [[ -n ${LOG:-} ]]; then
    # Tried first: an exec whose redirection fails would end the script with 1.
    { : >>"$LOG"; } 2>/dev/null || fail 74 "$LOG: cannot be written: check the folder and its owner"
    exec >>"$LOG" 2>&1
fi
exec .venv/bin/enrich run "$INPUT" "${flags[@]}" "${extra[@]}"
