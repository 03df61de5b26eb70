// ToolCall: reads one call that the model writes between <tool_call> and </tool_call>, byte by byte:
// {"name": "f", "arguments": {...}}. The arguments go on as they are written, and are checked on the way.
#ifndef ADALLM_SERVER_TOOL_CALL_H
#define ADALLM_SERVER_TOOL_CALL_H
#include "runtime/base/str.h"
#include "runtime/server/json_scan.h"

typedef enum {
    CALL_MORE,
    CALL_NAMED, // the name is known: `name`; `out` may hold arguments that came before it
    CALL_WHOLE, // the object ended
    CALL_BAD,   // this is no call
} CallResult;

typedef struct {
    uint8_t state, member;
    bool named, has_arguments;
    JsonScan scan;
    StrBuf raw;       // everything seen, until the name is known: text again if this is no call
    StrBuf key;       // member name or value of "name", with its escapes
    StrBuf arguments; // seen before the name
    StrBuf name;      // decoded
} ToolCall;

void tool_call_begin(ToolCall *c);
void tool_call_end(ToolCall *c); // frees
// Takes one byte. Bytes of arguments are appended to *out once the name is known.
CallResult tool_call_push(ToolCall *c, char byte, StrBuf *out);
#endif
