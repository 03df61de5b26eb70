// A list of texts, one of which is the answer.
#include "runtime/grammar/automaton.h"
#include "runtime/grammar/regex.h"

Grammar *grammar_from_choice(const Str *choices, size_t n, Err *e) {
    Build b;
    size_t total = 0, at;
    build_begin(&b, e);
    uint32_t root = build_rule(&b, NULL);
    if (!n) build_fail(&b, E_GRAMMAR, "there is no choice in the list");
    for (size_t i = 0; i < n && !b.failed; i++) {
        total += choices[i].len;
        if (total > GRAMMAR_TEXT_MAX)
            build_fail(&b, E_LIMIT, "the choices have more than %d bytes", GRAMMAR_TEXT_MAX);
        else if (!choices[i].len)
            build_fail(&b, E_GRAMMAR, "choice %zu is empty", i);
        else if (!regex_is_utf8(choices[i], &at))
            build_fail(&b, E_GRAMMAR, "choice %zu: byte %zu is not UTF-8", i, at);
        nfa_bytes(&b, choices[i]);
    }
    if (!b.failed) nfa_alt(&b, n);
    build_define(&b, root);
    return automaton_make(&b, root);
}
