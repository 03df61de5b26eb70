// Words to the supervisor (sd_notify): READY=1, STOPPING=1. Nothing when nobody listens (NOTIFY_SOCKET).
#ifndef ADALLM_SERVER_NOTIFY_H
#define ADALLM_SERVER_NOTIFY_H
void notify_supervisor(const char *words);
#endif
