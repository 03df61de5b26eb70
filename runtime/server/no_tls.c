// libmicrohttpd.a of Debian refers to GnuTLS, which has no static library there. The server never asks for
// TLS (a proxy in front of it does), so none of these is called but the two that begin and end the library.
#include <stdlib.h>

#include "runtime/base/err.h"

int gnutls_global_init(void);
int gnutls_global_init(void) { return 0; }
void gnutls_global_deinit(void);
void gnutls_global_deinit(void) {}

void server_without_tls(void);
void server_without_tls(void) {}

extern void *(*gnutls_malloc)(size_t);
void *(*gnutls_malloc)(size_t) = malloc;

#define ABSENT(name)                                                                                         \
    void name(void);                                                                                         \
    void name(void) { CHECK(!"TLS is not built in"); }
#include "runtime/server/no_tls.def"
#undef ABSENT
