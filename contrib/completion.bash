# Completion of bash for adallmc and adallm-rt: source it, or put it into /etc/bash_completion.d.
_adallm() {
    local verb=${COMP_WORDS[1]} word=${COMP_WORDS[COMP_CWORD]} words=
    case "$1 $verb" in
    'adallmc compile') words='-o --target --set --random-weights --explain --emit --no-cache --dump-after --quiet --help' ;;
    'adallmc quantize') words='-o --method --shard-mb --report --help' ;;
    'adallmc eval') words='--ids -o --set --random-weights --kv-fp --help' ;;
    'adallm-rt serve' | 'adallm-rt '*.ada) words='--host --port --uds --allowed-host --allowed-origins --api-key-file --no-auth --served-model-name --max-model-len --max-num-seqs --max-num-batched-tokens --threads --gpu-memory-utilization --kv-cache-memory --kv-cache-dtype --enforce-eager --tensor-parallel-size --no-enable-prefix-caching --speculate --num-speculative-tokens --generation-config --max-waiting-requests --max-waiting-tokens --max-body-bytes --max-header-bytes --max-connections --max-unsent-bytes --header-timeout --body-timeout --idle-timeout --stall-timeout --request-timeout --ping-interval --drain-timeout --workers --disable-log-requests --help' ;;
    'adallm-rt run') words='--temperature --top-p --top-k --min-p --repetition-penalty --presence-penalty --frequency-penalty --logit-bias --min-tokens --logprobs --max-tokens --seed --ignore-eos --chat --no-chat --system --threads --gpu-memory-utilization --kv-cache-memory --kv-cache-dtype --enforce-eager --help' ;;
    'adallm-rt logits') words='--ids -o --batch --chunk --threads --gpu-memory-utilization --kv-cache-memory --kv-cache-dtype --enforce-eager --help' ;;
    'adallm-rt info') words='--json --help' ;;
    'adallm-rt explain') words='--json --help' ;;
    'adallm-rt verify') words='--help' ;;
    'adallm-rt selftest') words='--threads --gpu-memory-utilization --kv-cache-memory --kv-cache-dtype --enforce-eager --help' ;;
    'adallm-rt bench') words='--batch --prompt --gen --launches --chunk --json --threads --gpu-memory-utilization --kv-cache-memory --kv-cache-dtype --enforce-eager --help' ;;
    'adallm-rt doctor') words='--threads --gpu-memory-utilization --kv-cache-memory --kv-cache-dtype --enforce-eager --help' ;;
    'adallm-rt tokenize') words='--jsonl --help' ;;
    'adallm-rt render') words='--jsonl --help' ;;
    esac
    [[ $COMP_CWORD -eq 1 ]] && words=$(_adallm_verbs "$1")
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word"; compgen -f -- "$word")
}
_adallm_verbs() {
    case "$1" in
    adallmc) echo 'compile version quantize eval' ;;
    adallm-rt) echo 'serve run logits info explain verify selftest bench doctor version tokenize render' ;;
    esac
}
complete -o filenames -F _adallm adallmc adallm-rt
