// A thread that does what it is told, in order, later: the null device behind a caller who does not wait.
#ifndef ADALLM_DEVICE_NULL_QUEUE_H
#define ADALLM_DEVICE_NULL_QUEUE_H
#include <stdbool.h>
#include <stddef.h>

typedef struct NullQueue NullQueue;
typedef void NullWork(void *ctx, const void *what);

NullQueue *null_queue_new(NullWork *work, void *ctx);
void null_queue_push(NullQueue *q, const void *what, size_t bytes, const void *more,
                     size_t more_bytes); // copied
bool null_queue_idle(NullQueue *q);
void null_queue_wait(NullQueue *q); // until it is idle
void null_queue_free(NullQueue *q); // does what is left first. q may be NULL
#endif
