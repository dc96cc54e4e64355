#!/usr/bin/env bash
# Installs the night for systemd: unit, timer, logrotate and settings. Run again it changes only what differs; settings
# that exist are never touched.
set -euo pipefail

usage="usage: install.sh [--dry-run] [--user NAME] [--prefix DIR]
  --dry-run     print every action, change nothing
  --user NAME   who runs the night; made when missing (enrich)
  --prefix DIR  write below DIR and leave users, owners and systemd alone, as for a package"

fail() { # STATUS MESSAGE
    printf 'install.sh: %s\n' "$2" >&2
    exit "$1"
}

user=enrich prefix='' dry=''
while (($#)); do
    case $1 in
        --dry-run) dry=yes ;;
        --user | --prefix)
            [[ -n ${2:-} ]] || fail 64 "$1 needs a value"
            if [[ $1 == --user ]]; then user=$2; else prefix=${2%/}; fi
            shift
            ;;
        --help) echo "$usage" && exit ;;
        *) fail 64 "$1: not an option; $usage" ;;
    esac
    shift
done

here=$(dirname -- "$(readlink -f -- "$0")")
checkout=$(dirname -- "$here")
# Both go into files where other characters would mean something.
[[ $user =~ ^[a-z_][a-z0-9_-]*$ ]] || fail 64 "--user $user: not a user name"
[[ $checkout =~ ^[A-Za-z0-9/._-]+$ ]] || fail 64 "$checkout: move the repository to a path of letters, digits, . _ - and /"
[[ -n $dry || -n $prefix || $EUID -eq 0 ]] || fail 77 "needs root: sudo, or --dry-run to see what it would do"
# What only the machine itself has: users, owners, a running systemd.
machine=yes
[[ -z $prefix ]] || machine=''
settings=$prefix/etc/enrich/nightly.env
units=$prefix/etc/systemd/system

act() { # WHAT COMMAND...
    echo "$1"
    [[ -n $dry ]] || "${@:2}"
}

fill() { # SOURCE: with the user and the place of the repository in it
    sed -e "s|/opt/enrich|$checkout|g" -e "s|^User=enrich\$|User=$user|" -e "s|su enrich enrich|su $user $group|" "$1"
}

write() { # SOURCE TARGET
    install -d -m 0755 "$(dirname -- "$2")"
    # Never half a unit under its name.
    fill "$1" >"$2.new"
    chmod 0644 "$2.new"
    mv -f "$2.new" "$2"
}

put() { # SOURCE TARGET
    if [[ -f $2 ]] && fill "$1" | cmp -s - "$2"; then
        echo "unchanged: $2"
    else
        act "write: $2" write "$@"
    fi
}

put_settings() {
    install -d -m 0755 "$(dirname -- "$settings")"
    # Only the user may read it: it may hold passwords.
    install -m 0640 "$here/nightly.env" "$settings"
    [[ -z $machine ]] || chown "root:$group" "$settings"
}

if [[ -n $machine ]] && ! id -u "$user" >/dev/null 2>&1; then
    act "make user: $user" useradd --system --user-group --home-dir /var/lib/enrich --shell /usr/sbin/nologin "$user"
fi
group=$(id -gn "$user" 2>/dev/null || echo "$user")

if [[ -e $settings ]]; then echo "kept: $settings"; else act "write: $settings" put_settings; fi
put "$here/enrich-nightly.service" "$units/enrich-nightly.service"
put "$here/enrich-nightly.timer" "$units/enrich-nightly.timer"
put "$here/logrotate" "$prefix/etc/logrotate.d/enrich"

if [[ -z $machine ]]; then
    echo "left out with --prefix: the user $user, systemctl daemon-reload, systemctl enable --now enrich-nightly.timer"
    exit
fi
# A checkout below /root, or an environment of another user's, would be noticed only at night.
if [[ -z $dry ]] && ! runuser -u "$user" -- "$checkout/.venv/bin/enrich" --version >/dev/null; then
    fail 78 "$user cannot run $checkout/.venv/bin/enrich: make setup model, and let $user read $checkout; timer not enabled"
fi
act "run: systemctl daemon-reload" systemctl daemon-reload
act "run: systemctl enable --now enrich-nightly.timer" systemctl enable --now enrich-nightly.timer
echo "now edit $settings, then try: systemctl start enrich-nightly; journalctl -fu enrich-nightly"
