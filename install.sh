#!/usr/bin/env bash
# Installs, upgrades and removes superbrain on a host.
set -euo pipefail
umask 022 # what is installed is for the service's user too, whatever root's umask is

usage() {
    cat <<'TEXT'
Usage: sudo ./install.sh [OPTIONS]
       sudo ./install.sh --uninstall [--purge] [--yes]

Installs superbrain as the service `superbraind`, or brings an installation up to date. Run it again
as often as you like: what is there already is left alone, configuration, keys, bundles and the
journal always. A new version that does not come up with the models that served before is taken
back, and the old one serves again.

  --wheelhouse DIR  take the packages from DIR (made by scripts/wheelhouse) instead of the network
  --cpu, --gpu      which ONNX Runtime; without either, what the wheelhouse or the host has
  --traces          also what exports spans to an OpenTelemetry collector; a wheelhouse has it or not
  --trust FILE      trust the author with this public key; may be repeated
  --prefix DIR      put all files below DIR and touch nothing else: no user, no service
  --dry-run         say what would be done, and do nothing
  --uninstall       remove superbrain; configuration, keys, bundles and journal stay
  --purge           with --uninstall: remove those too, and the user
  --yes             ask nothing

Debian 12 and 13, Ubuntu 22.04 and 24.04; Python 3.11 or newer. $PYTHON names another one.

Examples:
  sudo ./install.sh --trust author.pub
  sudo ./install.sh --wheelhouse /media/usb/superbrain
  sudo ./install.sh --dry-run
  sudo ./install.sh --uninstall
TEXT
}

say() { printf '%s\n' "$*"; }
step() { printf '  %-9s %s\n' "$1" "$2"; }
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    (($# == 0)) || printf '  → %s\n' "$@" >&2
    exit 1
}
usage_error() {
    printf 'error: %s\n  → install.sh --help\n' "$1" >&2
    exit 2
}

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
wheelhouse="" set_name="" traces=no prefix="" dry_run=no uninstall=no purge=no yes=no trust=()
while (($#)); do
    case $1 in
        -h | --help) usage && exit 0 ;;
        --wheelhouse | --trust | --prefix)
            (($# > 1)) || usage_error "expected a value after $1"
            case $1 in
                --wheelhouse) wheelhouse=$2 ;;
                --trust) trust+=("$2") ;;
                --prefix) prefix=$2 ;;
            esac
            shift
            ;;
        --cpu | --gpu) set_name=${1#--} ;;
        --traces) traces=yes ;;
        --dry-run) dry_run=yes ;;
        --uninstall) uninstall=yes ;;
        --purge) purge=yes ;;
        --yes | -y) yes=yes ;;
        *) usage_error "'$1' is no option" ;;
    esac
    shift
done
[[ $purge == no || $uninstall == yes ]] || usage_error "--purge goes with --uninstall"

if [[ -n $prefix ]]; then
    mkdir -p "$prefix" && prefix=$(cd "$prefix" && pwd)
fi
opt=$prefix/opt/superbrain
etc=$prefix/etc/superbrain
var=$prefix/var/lib/superbrain
unit=$prefix/usr/local/lib/systemd/system/superbraind.service
dropins=$prefix/etc/systemd/system/superbraind.service.d
sysusers=$prefix/usr/lib/sysusers.d/superbrain.conf
tmpfiles=$prefix/usr/lib/tmpfiles.d/superbrain.conf
completion=$prefix/usr/share/bash-completion/completions/superbrain
manuals=$prefix/usr/local/share/man
links=("$prefix/usr/local/bin/superbrain" "$prefix/usr/local/bin/superbraind")

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
log=$work/log

has_systemd() { [[ -z $prefix && -d /run/systemd/system ]]; }
running_id() { [[ ! -L $opt/current ]] || basename "$(readlink "$opt/current")"; }

require_root() {
    [[ -n $prefix || $(id -u) == 0 ]] ||
        die "expected to be root, found user $(id -un)" "sudo $0 …, or --prefix DIR for a trial"
}

# --- the host -------------------------------------------------------------------------------------

os_field() { sed -n "s/^$1=//p" /etc/os-release 2>/dev/null | tr -d '"'; }

check_host() {
    [[ $(uname -s) == Linux ]] || die "expected Linux, found $(uname -s)"
    case "$(os_field ID) $(os_field VERSION_ID)" in
        "debian 12" | "debian 13" | "ubuntu 22.04" | "ubuntu 24.04") ;;
        *) say "note: $(os_field PRETTY_NAME) is not among the systems this was tested on" ;;
    esac
}

explain_python() {
    case "$(os_field ID) $(os_field VERSION_ID)" in
        "ubuntu 22.04") say "sudo apt-get install python3.11 python3.11-venv" ;;
        *) say "sudo apt-get install python3 python3-venv" ;;
    esac
}

find_python() {
    python=$("$source_dir/scripts/find-python") ||
        die "no Python 3.11 or newer was found on this host" "$(explain_python)"
    # The service sees no home folders.
    case $(readlink -f "$python") in
        /home/* | /root/* | /run/user/*)
            [[ -n $prefix ]] || die "$python lies in a home folder, which the service cannot see" \
                "$(explain_python), then PYTHON=/usr/bin/python3 $0"
            ;;
    esac
    python_version=$("$python" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$python" -I -c 'import ensurepip, venv' 2>/dev/null ||
        die "$python cannot make environments" "sudo apt-get install python$python_version-venv"
}

host_has_gpu() { [[ -e /proc/driver/nvidia/version || -e /dev/nvidiactl || -e /dev/nvhost-gpu ]]; }

# --- the packages ---------------------------------------------------------------------------------

# Sets wheelhouse and set_name. A folder made by scripts/wheelhouse carries its own install.sh.
find_packages() {
    local has="" found_python found_machine
    [[ -n $wheelhouse || ! -f $source_dir/wheelhouse.txt ]] || wheelhouse=$source_dir
    if [[ -n $wheelhouse ]]; then
        [[ -f $wheelhouse/wheelhouse.txt ]] ||
            die "$wheelhouse is no complete wheelhouse" "make one with: scripts/wheelhouse DIR"
        read -r has found_python found_machine _ <"$wheelhouse/wheelhouse.txt"
        [[ $found_python == "$python_version" ]] || die \
            "the wheelhouse is for Python $found_python, this host has $python_version" \
            "make one on a machine with Python $python_version, or choose with PYTHON=python$found_python"
        [[ $found_machine == "$(uname -m)" ]] ||
            die "the wheelhouse is for $found_machine, this host is $(uname -m)"
        [[ -z $set_name || $set_name == "$has" ]] ||
            die "expected --$has, as the wheelhouse has it, found --$set_name"
        (cd "$wheelhouse" && sha256sum --check --strict --quiet SHA256SUMS) >"$log" 2>&1 ||
            die "the wheelhouse is damaged: $(head -n 1 "$log")" "copy it again"
        set_name=$has
        [[ $traces == no || -f $wheelhouse/requirements/otel.txt ]] ||
            die "the wheelhouse has nothing for --traces" "make one with: scripts/wheelhouse DIR --traces"
    elif [[ -z $set_name ]]; then
        if host_has_gpu; then set_name=gpu; else set_name=cpu; fi
    fi
}

fetch_packages() {
    [[ -z $wheelhouse ]] || return 0
    wheelhouse=$work/wheelhouse
    say "Fetching the packages ..."
    local wanted=("--$set_name")
    [[ $traces == no ]] || wanted+=(--traces)
    PYTHON=$python "$source_dir/scripts/wheelhouse" "$wheelhouse" "${wanted[@]}" --quiet ||
        die "the packages could not be fetched" "on a host without a network: --wheelhouse DIR"
}

# Names a version by what it is made of, so that the same is never installed twice.
version_id() {
    local wheel version digest
    wheel=$(find "$wheelhouse/wheels" -name 'superbrain-*.whl' | head -n 1)
    version=$(basename "$wheel" | cut -d- -f2)
    digest=$({ cat "$wheel" "$wheelhouse"/requirements/*.txt && cat "$wheelhouse"/systemd/superbrain.* "$wheelhouse"/systemd/*.service; \
        "$python" -I -c 'import sys; print(sys.version, sys.executable)'; } | sha256sum | cut -c1-8)
    printf '%s-%s\n' "$version" "$digest"
}

quietly() {
    "$@" >>"$log" 2>&1 && return
    grep -v '^ *Expected  *or' "$log" | tail -n 15 >&2
    die "$what" "the lines above say why"
}

# The pip that comes with Python, run from its wheel: the environment itself needs none.
bundled_pip() {
    "$python" -I -c '
import ensurepip, glob, os, sysconfig

places = (sysconfig.get_config_var("WHEEL_PKG_DIR"), os.path.join(ensurepip.__path__[0], "_bundled"))
found = [wheel for place in places if place for wheel in glob.glob(os.path.join(place, "pip-*.whl"))]
print(os.path.join(found[0], "pip"))'
}

# Sets `by_uv` to what installs packages in seconds, where the wheelhouse has a uv that runs here, and
# `by_pip` to what does so everywhere.
choose_installers() {
    local wheel uv
    by_uv=()
    by_pip=("$1/bin/python" -I "$(bundled_pip)" --isolated --disable-pip-version-check --no-input install
        --no-index --find-links "$wheelhouse/wheels" --no-cache-dir --no-compile)
    wheel=$(compgen -G "$wheelhouse/wheels/uv-*.whl") || return 0
    "$python" -I -m zipfile -e "$wheel" "$work/uv" >>"$log" 2>&1 || return 0
    uv=$(compgen -G "$work/uv/uv-*.data/scripts/uv") || return 0
    chmod 755 "$uv" && "$uv" --version >>"$log" 2>&1 || return 0
    by_uv=("$uv" --no-config --offline --no-cache --no-progress pip install --python "$1/bin/python"
        --no-index --find-links "$wheelhouse/wheels" --link-mode copy)
}

# What uv fails at, pip tries again; so the lines that are shown in the end are pip's.
install_packages() {
    if ((${#by_uv[@]})); then
        "${by_uv[@]}" "$@" >>"$log" 2>&1 && return
        by_uv=()
    fi
    quietly "${by_pip[@]}" "$@"
}

make_environment() {
    local lock home=$opt/$id by_uv by_pip made_from what="the packages could not be installed"
    if [[ -f $home/complete ]]; then
        step ok "$home is there already"
        return
    fi
    rm -rf -- "$home"
    mkdir -p "$opt"
    : >"$log"
    quietly "$python" -I -m venv --without-pip "$home"
    choose_installers "$home"
    made_from="$(cat "$wheelhouse"/requirements/*.txt | sha256sum) $python $python_version"
    if [[ $(cat "$opt/current/complete" 2>/dev/null) == "$made_from" ]]; then
        # The same packages as in the version that runs: a copy of them, sharing nothing.
        cp -a --reflink=auto "$opt/current/lib/." "$home/lib/"
        rm -rf -- "$home"/lib/python*/site-packages/superbrain{,-*}
    else
        for lock in "$wheelhouse"/requirements/*.txt; do
            install_packages --no-deps --require-hashes -r "$lock"
        done
    fi
    install_packages --no-deps "$wheelhouse"/wheels/superbrain-*.whl
    # On all processors, where pip would take one, and without what no service ever imports.
    quietly "$home/bin/python" -I -m compileall -q -j 0 -x '/(tests|testing|lexers|f2py|transformers|quantization)/' "$home/lib"
    what="superbrain does not start on this host"
    quietly "$home/bin/superbraind" --version
    mkdir -p "$home/share/doc/superbrain" "$home/share/man"
    cp -R "$wheelhouse/docs/." "$wheelhouse/LICENSE" "$home/share/doc/superbrain/"
    cp -R "$wheelhouse/systemd" "$home/share/systemd"
    "$home/bin/superbrain" completion bash >"$home/share/completion.bash"
    "$home/bin/superbrain" completion man >"$home/share/man/superbrain.1"
    daemon_manual >"$home/share/man/superbraind.8"
    printf '%s\n' "$made_from" >"$home/complete"
    step made "$home ($set_name, Python $python_version)"
}

daemon_manual() {
    printf '.TH SUPERBRAIND 8\n.SH NAME\nsuperbraind \\- the daemon of superbrain\n.SH SYNOPSIS\n.nf\n'
    "$opt/$id/bin/superbraind" --help | sed -e 's/\\/\\e/g' -e "s/^[.']/\\\\\&&/" -e 's/-/\\-/g'
    printf '.fi\n.SH "SEE ALSO"\nsuperbrain(1), /opt/superbrain/current/share/doc/superbrain/operations.md\n'
}

# --- the host's files -----------------------------------------------------------------------------

# $1: the version whose files they are.
place_files() {
    local share=$opt/$1/share
    install -D -m 644 "$share/systemd/superbraind.service" "$unit"
    install -D -m 644 "$share/systemd/superbrain.sysusers" "$sysusers"
    install -D -m 644 "$share/systemd/superbrain.tmpfiles" "$tmpfiles"
    install -D -m 644 "$share/completion.bash" "$completion"
    install -D -m 644 "$share/man/superbrain.1" "$manuals/man1/superbrain.1"
    install -D -m 644 "$share/man/superbraind.8" "$manuals/man8/superbraind.8"
    if [[ $set_name == gpu ]]; then
        install -D -m 644 "$share/systemd/superbraind.service.d/gpu.conf" "$dropins/gpu.conf"
    elif cmp -s "$share/systemd/superbraind.service.d/gpu.conf" "$dropins/gpu.conf"; then
        rm -f -- "$dropins/gpu.conf"
    fi
}

place_links() {
    local link
    for link in "${links[@]}"; do
        mkdir -p "$(dirname "$link")"
        ln -sfn "/opt/superbrain/current/bin/$(basename "$link")" "$link"
    done
}

make_user() {
    [[ -z $prefix ]] || return 0
    if command -v systemd-sysusers >/dev/null; then
        systemd-sysusers superbrain.conf
    elif ! getent passwd superbrain >/dev/null; then
        useradd --system --user-group --home-dir /var/lib/superbrain --no-create-home \
            --shell /usr/sbin/nologin superbrain
    fi
}

# The same table on every host, with or without systemd.
make_folders() {
    local kind path mode user group owner
    while read -r kind path mode user group _; do
        [[ $kind == d ]] || continue
        [[ -z $prefix || $path != /run/* ]] || continue
        owner=(-o "$user" -g "$group")
        [[ -z $prefix ]] || owner=()
        install -d "${owner[@]}" -m "$mode" "$prefix$path"
    done <"$tmpfiles"
}

place_configuration() {
    if [[ -e $etc/superbrain.toml ]]; then
        step kept "$etc/superbrain.toml"
        return
    fi
    install -D -m 644 "$opt/$id/share/systemd/superbrain.toml" "$etc/superbrain.toml"
    step made "$etc/superbrain.toml"
}

place_trust() {
    local key name
    for key in "${trust[@]}"; do
        name=$(basename "$key" .pub).pub
        install -D -m 644 "$key" "$etc/trust/keys/$name"
        step trusted "$etc/trust/keys/$name"
    done
}

check_trust() {
    local key
    for key in "${trust[@]}"; do
        [[ -f $key ]] || die "the key $key does not exist"
        grep -q 'BEGIN PUBLIC KEY' "$key" ||
            die "$key is no public key" "expected the .pub file that superbrain key generate makes"
    done
}

point_current_at() {
    ln -sfn "$1" "$opt/current.new"
    mv -T "$opt/current.new" "$opt/current"
}

# --- the service ----------------------------------------------------------------------------------

# Prints NAME-VERSION of every model that serves, in one line.
ready_models() {
    [[ -S /run/superbrain/control.sock ]] || return 0
    "$opt/current/bin/superbrain" health --json 2>/dev/null | "$python" -I -c '
import json, sys

models = json.load(sys.stdin).get("models", [])
served = (model for model in models if model["state"] in ("ready", "degraded"))
print(*sorted("{name}-{version}".format(**model) for model in served))
' 2>/dev/null || true
}

# Starts the version that `current` names. True when it says READY and serves the models in $1.
start_service() {
    local model ready
    systemctl daemon-reload
    systemctl reset-failed superbraind 2>/dev/null || true
    systemctl restart superbraind >>"$log" 2>&1 || return 1
    ready=" $(ready_models) "
    for model in $1; do
        [[ $ready == *" $model "* ]] || {
            say "the model $model serves no more" >>"$log"
            return 1
        }
    done
}

journal=/var/lib/superbrain/state/journal.sqlite

save_journal() {
    rm -rf -- "$work/journal"
    mkdir "$work/journal"
    [[ ! -f $journal ]] || cp -p "$journal"* "$work/journal/"
}

# A newer version may have written the journal in a form that the old one refuses, and a broken one
# may have written there that the models are broken. It stays only where it tells of a bundle that
# was dropped meanwhile and where the old version can read it.
restore_journal() {
    local stays
    [[ -f $work/journal/journal.sqlite && -f $journal ]] || return 0
    stays=$("$python" -I -c '
import contextlib, sqlite3, sys

def form_and_newest(path):
    with contextlib.closing(sqlite3.connect(path)) as journal:
        newest = journal.execute("SELECT max(id) FROM deployments").fetchone()
        return journal.execute("PRAGMA user_version").fetchone(), newest

(form, newest), (form_before, newest_before) = map(form_and_newest, sys.argv[1:])
print("yes" if form == form_before and newest != newest_before else "no")
' "$journal" "$work/journal/journal.sqlite" 2>>"$log") || stays=no
    [[ $stays == no ]] || return 0
    rm -f -- "$journal"*
    cp -p "$work/journal/"* "$(dirname "$journal")/"
}

switch_service() {
    local old=$1 before
    before=$(ready_models)
    # The old version writes its journal to the end before the new one opens it.
    ! systemctl is-active --quiet superbraind || systemctl stop superbraind
    save_journal
    place_files "$id"
    point_current_at "$id"
    say "Starting superbraind; every model that served proves itself again ..."
    if start_service "$before"; then
        systemctl enable --quiet superbraind 2>/dev/null || true
        return
    fi
    journalctl -u superbraind -n 12 -o cat --no-pager >>"$log" 2>/dev/null || true
    tail -n 14 "$log" | sed 's/^/    /' >&2
    systemctl stop superbraind 2>/dev/null || true
    if [[ -z $old ]]; then
        die "superbraind does not come up; the lines above say why" "mend it, then run this again"
    fi
    say "The new version did not come up. Putting $old back ..." >&2
    restore_journal
    place_files "$old"
    point_current_at "$old"
    start_service "$before" || die "$old does not come up either" "journalctl -u superbraind"
    rm -rf -- "${opt:?}/$id"
    die "the upgrade to $id failed; $old serves again: ${before:-no models}" \
        "the lines above say why; nothing was lost"
}

# The version before stays, for a way back without a wheelhouse.
remove_older() {
    local keep=" $id $1 " found
    for found in "$opt"/*/; do
        found=$(basename "$found")
        [[ $found == current || $keep == *" $found "* || ! -f $opt/$found/complete ]] || rm -rf -- "${opt:?}/$found"
    done
}

report_service() {
    say ""
    "$opt/current/bin/superbrain" health || true
    say ""
    if compgen -G "$etc/trust/keys/*.pub" >/dev/null; then
        say "Next:"
        say "  sudo usermod -aG superbrain USER                # who may drop bundles and ask models"
        say "  cp model-1.0.0.sbb /var/lib/superbrain/inbox/   # this is deploying"
    else
        say "Nobody is trusted yet, so no bundle is taken. Next:"
        say "  sudo ./install.sh --trust author.pub            # or copy it to $etc/trust/keys and reload"
        say "  sudo usermod -aG superbrain USER                # who may drop bundles and ask models"
    fi
    say "  sudo superbrain status"
}

# --- removing -------------------------------------------------------------------------------------

confirm() {
    [[ $yes == no ]] || return 0
    [[ -t 0 ]] || die "nobody can be asked here whether to $1" "add --yes"
    local answer
    read -r -p "Really $1? [y/N] " answer
    [[ $answer == [yY]* ]] || die "nothing was done"
}

remove() {
    local what="remove superbrain, keeping $etc and $var"
    [[ $purge == no ]] || what="remove superbrain with its configuration, keys, bundles and journal"
    if [[ $dry_run == yes ]]; then
        say "Would $what."
        return
    fi
    require_root
    confirm "$what"
    if has_systemd; then
        systemctl disable --now --quiet superbraind 2>/dev/null || true
    fi
    rm -f -- "$unit" "$sysusers" "$tmpfiles" "$completion" "${links[@]}" \
        "$manuals/man1/superbrain.1" "$manuals/man8/superbraind.8"
    rm -rf -- "$opt" "$prefix/run/superbrain"
    if [[ $purge == yes ]]; then
        rm -rf -- "$etc" "$var" "$dropins"
        if [[ -z $prefix ]] && getent passwd superbrain >/dev/null; then
            userdel superbrain
            ! getent group superbrain >/dev/null || groupdel superbrain
        fi
    fi
    if has_systemd; then
        systemctl daemon-reload
        systemctl reset-failed superbraind 2>/dev/null || true
    fi
    if [[ $purge == yes ]]; then
        say "superbrain is gone, and everything of it."
    else
        say "superbrain is gone. $etc and $var are kept; install.sh brings all of it back."
    fi
}

# --- main -----------------------------------------------------------------------------------------

if [[ $uninstall == yes ]]; then
    remove
    exit 0
fi
check_host
find_python
find_packages
check_trust
if [[ $dry_run == yes ]]; then
    say "Would install superbrain ($set_name, Python $python_version) from ${wheelhouse:-the network} into $opt,"
    say "now there: $(running_id || true)"
    say "Would place $unit, $sysusers, $tmpfiles, ${links[*]}, $completion and manual pages."
    [[ -e $etc/superbrain.toml ]] || say "Would make $etc/superbrain.toml."
    ((${#trust[@]} == 0)) || say "Would trust ${trust[*]}."
    if has_systemd; then say "Would start superbraind, and take it back if its models do not serve."; fi
    exit 0
fi
require_root
fetch_packages
id=$(version_id)
old=$(running_id)
say "superbrain $id"
make_environment
place_files "$id"
place_links
make_user
make_folders
place_configuration
place_trust
if has_systemd; then
    if [[ $old == "$id" ]] && systemctl is-active --quiet superbraind; then
        systemctl daemon-reload
        ((${#trust[@]} == 0)) || systemctl reload superbraind
        step ok "superbraind runs this version already"
    else
        [[ $old != "$id" ]] || old=""
        switch_service "$old"
    fi
    [[ $old == "$id" ]] || remove_older "$old"
    report_service
else
    point_current_at "$id"
    say ""
    why="systemd does not run here"
    [[ -z $prefix ]] || why="that is what --prefix is for"
    say "The files are in place. Nothing was started: $why. By hand:"
    say "  $opt/current/bin/superbraind${prefix:+ --root DIR}"
fi
