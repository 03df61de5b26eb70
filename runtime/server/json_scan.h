// JsonScan: finds the end of one JSON value in text that arrives in pieces, and checks it on the way. Holds
// nothing of the text.
#ifndef ADALLM_SERVER_JSON_SCAN_H
#define ADALLM_SERVER_JSON_SCAN_H
#include <stdbool.h>
#include <stdint.h>

enum { JSON_SCAN_DEPTH = 64 };

typedef struct {
    uint64_t objects; // bit d: the container at depth d is an object
    uint8_t depth, state, digits;
    const char *literal; // rest of true, false, null
} JsonScan;

typedef enum {
    SCAN_MORE,  // the byte belongs to the value, which goes on
    SCAN_DONE,  // the byte is the last one of the value
    SCAN_AFTER, // the value, a number, ended before this byte
    SCAN_BAD,
} ScanResult;

// s starts as {0}; spaces before the value are part of it. Not to be called again after anything but
// SCAN_MORE.
ScanResult json_scan(JsonScan *s, char c);
// Whether the value would be whole if the text ended here: only a number can be.
bool json_scan_whole_number(const JsonScan *s);
#endif
