// Cleanup: temporary files and folders that must not outlive the program, even when it is interrupted.
#ifndef ADALLM_BASE_CLEANUP_H
#define ADALLM_BASE_CLEANUP_H

// From now on SIGINT, SIGTERM and SIGHUP remove what is registered and end the process with 128 + signal.
// Call it before the first thread is made: the signals are blocked in every thread but the one that waits for
// them. Children inherit the blocked mask unless they are spawned with another.
void cleanup_on_signals(void);

void cleanup_add(const char *path);    // a file, or a folder with all that is in it; copied
void cleanup_drop(const char *path);   // it is gone, or was renamed to its final name
void cleanup_remove(const char *path); // removes it now, and drops it
#endif
