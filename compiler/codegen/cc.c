#include "compiler/codegen/cc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/file.h"

enum { CC_ARGS_MAX = 64, CC_LOG_MAX = 1 << 20, CC_WORDS_SHOWN = 700 };

extern char **environ;

const CcTool cc_tool_c = {"C compiler", "CC", "cc", NULL, "install gcc or clang, or name one with CC="};
const CcTool cc_tool_nvcc = {
    "CUDA compiler", "NVCC", "nvcc", "/usr/local/cuda/bin/nvcc",
    "install the CUDA toolkit, 12.0 or later, and put its bin folder on PATH, or name "
    "nvcc with NVCC="};

static bool on_path(Arena *a, const char *name) {
    const char *path = getenv("PATH");
    for (char *save = NULL, *dir = strtok_r(arena_strdup(a, path ? path : ""), ":", &save); dir;
         dir = strtok_r(NULL, ":", &save))
        if (access(path_join(a, dir, name), X_OK) == 0) return true;
    return false;
}

static const char *tool_words(Arena *a, const CcTool *tool) {
    const char *words = getenv(tool->variable);
    if (words && words[strspn(words, " ")]) return words;
    bool elsewhere = tool->otherwise && access(tool->otherwise, X_OK) == 0 && !on_path(a, tool->name);
    return elsewhere ? tool->otherwise : tool->name;
}

bool cc_start(Arena *a, const CcTool *tool, const char *dir, const char *log, const char *const *args,
              CcJob *out, Diags *d) {
    char *argv[CC_ARGS_MAX] = {0};
    size_t n = 0;
    for (char *save = NULL, *word = strtok_r(arena_strdup(a, tool_words(a, tool)), " ", &save);
         word && n < CC_ARGS_MAX / 2; word = strtok_r(NULL, " ", &save))
        argv[n++] = word;
    for (; *args; args++) {
        CHECK(n + 1 < CC_ARGS_MAX);
        argv[n++] = arena_strdup(a, *args);
    }
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addchdir_np(&files, dir);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, log, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
    posix_spawnattr_t how; // the compiler can be interrupted, whatever this program blocks
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_init(&how);
    posix_spawnattr_setsigmask(&how, &none);
    posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGMASK);
    pid_t pid;
    int failed = posix_spawnp(&pid, argv[0], &files, &how, argv, environ);
    posix_spawnattr_destroy(&how);
    posix_spawn_file_actions_destroy(&files);
    if (failed) {
        diag_error(d, E_CODEGEN, SPAN_NONE, "cannot run the %s `%s`: %s", tool->what, argv[0],
                   strerror(failed));
        diag_hint(d, "%s", tool->hint);
        return false;
    }
    *out = (CcJob){tool, pid, dir, log};
    return true;
}

bool cc_wait(Arena *a, const CcJob *job, const char *what, Str *said, Diags *d) {
    int status;
    while (waitpid(job->pid, &status, 0) < 0)
        if (errno != EINTR)
            return diag_error(d, E_CODEGEN, SPAN_NONE, "lost the %s: %s", job->tool->what, strerror(errno));
    const char *path = path_join(a, job->dir, job->log);
    Str words = {"", 0};
    Err ignored;
    (void)file_read(a, path, CC_LOG_MAX, &words, &ignored);
    unlink(path);
    if (said) *said = words;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
    words.len = words.len < CC_WORDS_SHOWN ? words.len : CC_WORDS_SHOWN;
    return diag_error(d, E_CODEGEN, SPAN_NONE, "the %s `%s` failed on %s (%s %d):\n" STR_FMT, job->tool->what,
                      tool_words(a, job->tool), what, WIFEXITED(status) ? "exit code" : "signal",
                      WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), STR_ARG(words));
}
