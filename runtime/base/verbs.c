#include "runtime/base/verbs.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "runtime/base/diag.h"

static void verbs_help(const char *program, const char *about, const Verb *verbs, size_t n_verbs, FILE *out) {
    fprintf(out, "%s\n\nusage: %s VERB [arguments]     (%s VERB --help says more)\n\n", about, program,
            program);
    for (size_t i = 0; i < n_verbs; i++) fprintf(out, "  %-10s %s\n", verbs[i].name, verbs[i].about);
}

static int verbs_unknown(const char *program, const char *word, const Verb *verbs, size_t n_verbs) {
    Arena arena = {0};
    Diags d = {.arena = &arena};
    const char **names = ARENA_ARRAY(&arena, const char *, n_verbs);
    for (size_t i = 0; i < n_verbs; i++) names[i] = verbs[i].name;
    diag_error(&d, E_USAGE, SPAN_NONE, "unknown verb `%s`", word);
    diag_did_you_mean(&d, str_of(word), names, n_verbs);
    diags_print(&d, program, stderr);
    int code = diags_exit_code(&d);
    arena_free(&arena);
    return code;
}

// A standard file that the caller closed would lend its number to the next file opened, which prints would
// then overwrite. The wrong direction makes every use of it fail as that of a closed file does.
static void hold_standard_files(void) {
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0) return;
}

// What was printed must have arrived; a verb that failed has said why.
static int finish(const char *program, int code) {
    bool failed = ferror(stdout);
    if ((fflush(stdout) == 0 && !failed) || code != 0) return code;
    Arena arena = {0};
    Diags d = {.arena = &arena};
    Err e;
    err_errno(&e, E_FILE, "cannot write to stdout");
    diag_err(&d, SPAN_NONE, &e);
    diags_print(&d, program, stderr);
    arena_free(&arena);
    return 1;
}

int verbs_main(const char *program, const char *about, const Verb *verbs, size_t n_verbs, int argc,
               char **argv) {
    hold_standard_files();
    if (argc < 2) {
        verbs_help(program, about, verbs, n_verbs, stderr);
        return 2;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        verbs_help(program, about, verbs, n_verbs, stdout);
        return finish(program, 0);
    }
    for (size_t i = 0; i < n_verbs; i++)
        if (!strcmp(argv[1], verbs[i].name)) return finish(program, verbs[i].run(argc - 1, argv + 1));
    return verbs_unknown(program, argv[1], verbs, n_verbs);
}
