// The listening socket.
#ifndef ADALLM_SERVER_LISTEN_H
#define ADALLM_SERVER_LISTEN_H
#include "runtime/server/server.h"

// *loopback: only this machine can reach it. url: "http://127.0.0.1:8000" or "unix:/path".
bool listen_open(const ServerOptions *o, int *fd, bool *loopback, char *url, size_t url_cap, Err *e);
#endif
