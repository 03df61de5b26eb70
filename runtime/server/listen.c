#include "runtime/server/listen.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 1024 };

static bool bind_and_listen(int fd, const struct sockaddr *address, socklen_t len, const char *what, Err *e) {
    if (bind(fd, address, len) == 0 && listen(fd, BACKLOG) == 0) return true;
    err_errno(e, E_SYSTEM, "cannot listen on %s", what);
    close(fd);
    return false;
}

// A socket that nobody answers is left from a server that was killed.
static bool remove_stale(const char *path, const struct sockaddr_un *address, Err *e) {
    struct stat st;
    if (lstat(path, &st) != 0) return true;
    if (!S_ISSOCK(st.st_mode)) return err_set(e, E_OPTION_VALUE, "%s is there, and no socket", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool answered = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) == 0;
    if (fd >= 0) close(fd);
    if (answered) return err_set(e, E_OPTION_VALUE, "another server listens on %s", path);
    return unlink(path) == 0 || err_errno(e, E_SYSTEM, "cannot remove %s", path);
}

static bool listen_unix(const char *path, int *fd, Err *e) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return err_set(e, E_OPTION_VALUE, "a socket's path has at most %zu bytes: %s",
                       sizeof address.sun_path - 1, path);
    strcpy(address.sun_path, path);
    if (!remove_stale(path, &address, e)) return false;
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0) return err_errno(e, E_SYSTEM, "cannot make a socket");
    return bind_and_listen(*fd, (struct sockaddr *)&address, sizeof address, path, e);
}

static bool is_loopback(const struct sockaddr_storage *a) {
    if (a->ss_family == AF_INET) return ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)a)->sin6_addr);
}

static void write_url(int fd, char *url, size_t cap) {
    struct sockaddr_storage bound = {0};
    socklen_t len = sizeof bound;
    char host[64] = "", port[16] = "";
    getsockname(fd, (struct sockaddr *)&bound, &len);
    getnameinfo((struct sockaddr *)&bound, len, host, sizeof host, port, sizeof port,
                NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(url, cap, bound.ss_family == AF_INET6 ? "http://[%s]:%s" : "http://%s:%s", host, port);
}

static bool listen_tcp(const ServerOptions *o, int *fd, bool *loopback, char *url, size_t cap, Err *e) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found;
    struct sockaddr_storage address;
    char port[8], what[128];
    int on = 1;
    snprintf(port, sizeof port, "%u", o->port);
    snprintf(what, sizeof what, "%s port %s", o->host, port);
    int failed = getaddrinfo(o->host, port, &hints, &found);
    if (failed) return err_set(e, E_OPTION_VALUE, "--host %s: %s", o->host, gai_strerror(failed));
    socklen_t len = found->ai_addrlen;
    int family = found->ai_family;
    memcpy(&address, found->ai_addr, len);
    freeaddrinfo(found);
    *loopback = is_loopback(&address);
    *fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0) return err_errno(e, E_SYSTEM, "cannot make a socket");
    setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (!bind_and_listen(*fd, (struct sockaddr *)&address, len, what, e)) return *fd = -1, false;
    write_url(*fd, url, cap);
    return true;
}

bool listen_open(const ServerOptions *o, int *fd, bool *loopback, char *url, size_t cap, Err *e) {
    if (!o->socket) return listen_tcp(o, fd, loopback, url, cap, e);
    *loopback = true;
    snprintf(url, cap, "unix:%s", o->socket);
    return listen_unix(o->socket, fd, e);
}
