// The version of both programs; artifacts carry their own format version (format.h).
#ifndef ADALLM_BASE_VERSION_H
#define ADALLM_BASE_VERSION_H
#define ADALLM_VERSION "0.1.0"
#endif
