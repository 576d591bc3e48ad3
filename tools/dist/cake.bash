# Completion of cake(1) for bash; made by `cake completion bash`.
_cake() {
  local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
  local verb='' i flags
  local globals='-h --help --format --json -q --quiet --no-truncate --store --cache-dir --token-file --endpoint --offline --no-progress -y --yes --dry-run -v --verbose --version'
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      -*) ;;
      *) verb=${COMP_WORDS[i]}; break ;;
    esac
  done
  COMPREPLY=()
  case $previous in
    --format) COMPREPLY=($(compgen -W 'auto human json quiet' -- "$word")); return ;;
    --store | --cache-dir | --local-dir) COMPREPLY=($(compgen -d -- "$word")); return ;;
    --token-file) COMPREPLY=($(compgen -f -- "$word")); return ;;
    -o)
      compopt -o nospace
      local last=${word##*,} before=
      [[ $word == *,* ]] && before=${word%,*},
      COMPREPLY=($(compgen -P "$before" -W 'rev= refresh= subdir= include= exclude= layout= token_file= endpoint= proxy= cafile= offline= hard soft timeo= retrans= max_conns= store= cache_size= min_free= codec= hot= mem_cache= readahead= prefetch= uid= gid= fmode= dmode= allow_other attr_ttl= neg_ttl= read_ahead_kb= max_background= passthrough= log= loglevel= pid_file=' -- "$last"))
      return ;;
  esac
  case $verb in
    '') COMPREPLY=($(compgen -W "$globals mount umount upgrade ps pull download ls tree stat cat du df rm prune pin unpin inspect hash diff compare locate verify fsck recompress import export serve config env doctor completion" -- "$word")); return ;;
    mount) flags='-h --help -o -f --foreground' ;;
    umount) flags='-h --help --lazy' ;;
    upgrade) flags='-h --help' ;;
    ps) flags='-h --help --watch' ;;
    pull) flags='-h --help --include --exclude --revision --local-dir --max-workers --all-formats --force --pin' ;;
    download) flags='-h --help --include --exclude --revision --local-dir --max-workers --all-formats --force --pin' ;;
    ls) flags='-h --help --revisions --filter --sort --limit' ;;
    tree) flags='-h --help --remote' ;;
    stat) flags='-h --help --remote' ;;
    cat) flags='-h --help --range --remote' ;;
    du) flags='-h --help --by' ;;
    df) flags='-h --help --by' ;;
    rm) flags='-h --help' ;;
    prune) flags='-h --help --max-size --max-age --incomplete --detached' ;;
    pin) flags='-h --help --hot' ;;
    unpin) flags='-h --help --hot' ;;
    inspect) flags='-h --help --tensors --header' ;;
    hash) flags='-h --help --tensors --scheme' ;;
    diff) flags='-h --help --tensors' ;;
    compare) flags='-h --help --tensors' ;;
    locate) flags='-h --help --extents' ;;
    verify) flags='-h --help --repair --fail-on-missing-files --fail-on-extra-files' ;;
    fsck) flags='-h --help --repair --rebuild' ;;
    recompress) flags='-h --help --codec' ;;
    import) flags='-h --help --name --replace' ;;
    export) flags='-h --help --layout --link' ;;
    serve) flags='-h --help --listen --tls-cert --tls-key --require-token --max-conns --max-conns-per-ip' ;;
    config) flags='-h --help' ;;
    env) flags='-h --help' ;;
    doctor) flags='-h --help' ;;
    completion) flags='-h --help' ;;
  esac
  if [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$flags $globals" -- "$word"))
    return
  fi
  case $verb in
    mount | umount | upgrade | serve | import) COMPREPLY=($(compgen -d -- "$word")) ;;
    completion) COMPREPLY=($(compgen -W 'bash zsh fish' -- "$word")) ;;
    config) COMPREPLY=($(compgen -W "$(cake config 2>/dev/null | cut -f1 | tail -n +2)" -- "$word")) ;;
    pull | download | ls | tree | cat | stat | du | df | inspect | hash | diff | compare | locate | verify | export)
      COMPREPLY=($(compgen -W "$(cake ls -q 2>/dev/null | sed 's,^model/,,')" -- "$word")) ;;
  esac
}
complete -F _cake cake
