#include "runtime/server/json_scan.h"

#include <string.h>

enum {
    VALUE, // a value must begin
    FIRST, // of an array: a value or ]
    KEY_OR_END,
    KEY, // after a comma
    COLON,
    NEXT, // comma or end of the container
    STRING,
    ESCAPE,
    UNICODE,
    KEY_STRING,
    KEY_ESCAPE,
    KEY_UNICODE,
    LITERAL,
    MINUS, // a digit must follow
    ZERO,
    INTEGER,
    POINT, // a digit must follow
    FRACTION,
    EXPONENT, // sign or digit must follow
    EXPONENT_SIGN,
    EXPONENT_DIGITS,
};

static bool space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
static bool digit(char c) { return c >= '0' && c <= '9'; }
static bool hex(char c) { return digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

static ScanResult to(JsonScan *s, uint8_t state) {
    s->state = state;
    return SCAN_MORE;
}

static ScanResult value_end(JsonScan *s) {
    s->state = NEXT;
    return s->depth ? SCAN_MORE : SCAN_DONE;
}

static ScanResult enter(JsonScan *s, bool object) {
    if (s->depth == JSON_SCAN_DEPTH) return SCAN_BAD;
    uint64_t bit = 1ull << s->depth++;
    s->objects = object ? s->objects | bit : s->objects & ~bit;
    return to(s, object ? KEY_OR_END : FIRST);
}

static ScanResult leave(JsonScan *s, char c) {
    bool object = (s->objects >> (s->depth - 1)) & 1;
    if (c != (object ? '}' : ']')) return SCAN_BAD;
    s->depth--;
    return value_end(s);
}

static ScanResult value_begin(JsonScan *s, char c) {
    switch (c) {
    case '{': return enter(s, true);
    case '[': return enter(s, false);
    case '"': return to(s, STRING);
    case '-': return to(s, MINUS);
    case '0': return to(s, ZERO);
    case 't': s->literal = "rue"; return to(s, LITERAL);
    case 'f': s->literal = "alse"; return to(s, LITERAL);
    case 'n': s->literal = "ull"; return to(s, LITERAL);
    default: return digit(c) ? to(s, INTEGER) : SCAN_BAD;
    }
}

static ScanResult structure(JsonScan *s, char c) {
    if (space(c)) return SCAN_MORE;
    switch (s->state) {
    case VALUE: return value_begin(s, c);
    case FIRST: return c == ']' ? leave(s, c) : value_begin(s, c);
    case KEY_OR_END:
        if (c == '}') return leave(s, c);
        return c == '"' ? to(s, KEY_STRING) : SCAN_BAD;
    case KEY: return c == '"' ? to(s, KEY_STRING) : SCAN_BAD;
    case COLON: return c == ':' ? to(s, VALUE) : SCAN_BAD;
    default:
        if (c == ',') return to(s, (s->objects >> (s->depth - 1)) & 1 ? KEY : VALUE);
        return c == '}' || c == ']' ? leave(s, c) : SCAN_BAD;
    }
}

static ScanResult string(JsonScan *s, char c) {
    bool key = s->state == KEY_STRING;
    if (c == '"') return key ? to(s, COLON) : value_end(s);
    if (c == '\\') return to(s, key ? KEY_ESCAPE : ESCAPE);
    return (unsigned char)c < 0x20 ? SCAN_BAD : SCAN_MORE;
}

static ScanResult escape(JsonScan *s, char c) {
    bool key = s->state == KEY_ESCAPE;
    s->digits = 0;
    if (c == 'u') return to(s, key ? KEY_UNICODE : UNICODE);
    return c && strchr("\"\\/bfnrt", c) ? to(s, key ? KEY_STRING : STRING) : SCAN_BAD;
}

static ScanResult unicode(JsonScan *s, char c) {
    if (!hex(c)) return SCAN_BAD;
    if (++s->digits < 4) return SCAN_MORE;
    return to(s, s->state == KEY_UNICODE ? KEY_STRING : STRING);
}

static ScanResult literal(JsonScan *s, char c) {
    if (c != *s->literal) return SCAN_BAD;
    return *++s->literal ? SCAN_MORE : value_end(s);
}

bool json_scan_whole_number(const JsonScan *s) {
    return !s->depth &&
           (s->state == ZERO || s->state == INTEGER || s->state == FRACTION || s->state == EXPONENT_DIGITS);
}

// The byte after a number belongs to what is around it.
static ScanResult number_end(JsonScan *s, char c) {
    s->state = NEXT;
    return s->depth ? structure(s, c) : SCAN_AFTER;
}

static ScanResult number(JsonScan *s, char c) {
    switch (s->state) {
    case MINUS: return c == '0' ? to(s, ZERO) : digit(c) ? to(s, INTEGER) : SCAN_BAD;
    case POINT: return digit(c) ? to(s, FRACTION) : SCAN_BAD;
    case EXPONENT:
        if (c == '+' || c == '-') return to(s, EXPONENT_SIGN);
        return digit(c) ? to(s, EXPONENT_DIGITS) : SCAN_BAD;
    case EXPONENT_SIGN: return digit(c) ? to(s, EXPONENT_DIGITS) : SCAN_BAD;
    default: break;
    }
    if (digit(c)) return s->state == ZERO ? SCAN_BAD : SCAN_MORE;
    if (c == '.' && (s->state == ZERO || s->state == INTEGER)) return to(s, POINT);
    if ((c == 'e' || c == 'E') && s->state != EXPONENT_DIGITS) return to(s, EXPONENT);
    return number_end(s, c);
}

ScanResult json_scan(JsonScan *s, char c) {
    switch (s->state) {
    case STRING:
    case KEY_STRING: return string(s, c);
    case ESCAPE:
    case KEY_ESCAPE: return escape(s, c);
    case UNICODE:
    case KEY_UNICODE: return unicode(s, c);
    case LITERAL: return literal(s, c);
    default: return s->state >= MINUS ? number(s, c) : structure(s, c);
    }
}
