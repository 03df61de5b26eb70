// Rules: what the text of an answer must look like, as masks for the engine. Made from response_format and
// the like, and from tool_choice where it demands a call. Reasoning is free; the rule holds behind it.
#ifndef ADALLM_SERVER_RULES_H
#define ADALLM_SERVER_RULES_H
#include "runtime/engine/mask.h"
#include "runtime/server/request.h"

typedef struct RuleBook RuleBook; // what all rules of a model share
typedef struct Rules Rules;       // of one request

RuleBook *rule_book_new(const ApiModel *m); // the vocabulary is read at the first use
void rule_book_free(RuleBook *b);           // b may be NULL

// *out: NULL when the request asks for nothing. May take a second: for a worker's thread. False: *e names the
// field and the place in it.
bool rules_make(RuleBook *b, const ApiRequest *r, Rules **out, ApiError *e);
// References, counted by one thread: the engine uses the masks until the last choice has ended. r may be
// NULL.
Rules *rules_hold(Rules *r);
void rules_drop(Rules *r);
// Masks for the n choices of prompt `prompt`: [r->n], owned by the rules. Used on the engine's thread.
const TokenMask *rules_masks(Rules *r, uint32_t prompt);
#endif
