#include "runtime/base/cleanup.h"

#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/err.h"

enum { PATHS_MAX = 16 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *paths[PATHS_MAX];

static sigset_t ending_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    return set;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void remove_path(const char *path) { nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS); }

static void *wait_for_signal(void *unused) {
    (void)unused;
    sigset_t set = ending_signals();
    int signal_number = 0;
    sigwait(&set, &signal_number);
    pthread_mutex_lock(&lock); // never given back: nothing is registered or renamed from here on
    for (int i = 0; i < PATHS_MAX; i++)
        if (paths[i]) remove_path(paths[i]);
    _exit(128 + signal_number);
}

void cleanup_on_signals(void) {
    sigset_t set = ending_signals();
    pthread_t thread;
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    CHECK(pthread_create(&thread, NULL, wait_for_signal, NULL) == 0);
    pthread_detach(thread);
}

void cleanup_add(const char *path) {
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < PATHS_MAX && paths[i]) i++;
    CHECK(i < PATHS_MAX);
    paths[i] = strdup(path);
    CHECK(paths[i]);
    pthread_mutex_unlock(&lock);
}

void cleanup_drop(const char *path) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < PATHS_MAX; i++)
        if (paths[i] && !strcmp(paths[i], path)) {
            free(paths[i]);
            paths[i] = NULL;
        }
    pthread_mutex_unlock(&lock);
}

void cleanup_remove(const char *path) {
    remove_path(path);
    cleanup_drop(path);
}
