"""Completion scripts for shells. They ask `kitctl __complete` at each press of Tab. Pure.

So they know what this version can do, and what the daemon has at that moment.
"""

from collections.abc import Mapping

_BASH = r"""_kitctl() {
    local line directive= program="${COMP_WORDS[0]/#\~\//$HOME/}"
    type -P "$program" >/dev/null || program=kitctl
    COMPREPLY=()
    while IFS= read -r line; do
        case "$line" in
            :none|:files|:directories) directive="$line" ;;
            *) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <("$program" __complete line "${COMP_LINE:0:COMP_POINT}" "$2" 2>/dev/null)
    case "$directive" in
        :files) compopt -o default 2>/dev/null ;;
        :directories) compopt -o dirnames 2>/dev/null ;;
    esac
}
complete -F _kitctl kitctl"""

_ZSH = r"""#compdef kitctl
_kitctl() {
    local -a lines described
    local line value directive program="${${(Q)words[1]}/#\~\//$HOME/}"
    whence -p -- "$program" >/dev/null || program=kitctl
    lines=("${(@f)$("$program" __complete words "${(@Q)words[2,CURRENT-1]}" \
        "$QIPREFIX$PREFIX" 2>/dev/null)}")
    for line in "${lines[@]}"; do
        case "$line" in
            :none|:files|:directories) directive="$line" ;;
            ?*)
                value="${line%%$'\t'*}"
                described+=("${value//:/\\:}:${line#*$'\t'}")
                ;;
        esac
    done
    (( $#described )) && _describe -V kitctl described
    case "$directive" in
        :files) _files ;;
        :directories) _files -/ ;;
    esac
}
if [ "$funcstack[1]" = "_kitctl" ]; then
    _kitctl "$@"
else
    compdef _kitctl kitctl
fi"""

_FISH = r"""function __kitctl_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    command -q $program; or set program kitctl
    for line in ($program __complete words $words[2..-1] "$current" 2>/dev/null)
        switch $line
            case ':none'
            case ':files'
                __fish_complete_path "$current"
            case ':directories'
                __fish_complete_directories "$current"
            case '*'
                echo $line
        end
    end
end
complete -c kitctl -f -k -a '(__kitctl_complete)'"""

SCRIPTS: Mapping[str, str] = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
