// What templates.def says about each kernel template, as a table.
#ifndef ADALLM_IR_TEMPLATE_H
#define ADALLM_IR_TEMPLATE_H
#include "runtime/base/str.h"

enum { TEMPLATE_ARGS_MAX = 16, TEMPLATE_FIELDS_MAX = 20 };

typedef struct {
    Str name, type; // "x", "f32[T,K]"
    bool reads, writes;
} TemplateArg;

typedef struct {
    Str key;
    char kind; // 'u' unsigned, 'f' float, 'n' name
} TemplateField;

typedef struct {
    const char *name;
    TemplateArg args[TEMPLATE_ARGS_MAX];
    uint32_t n_args;
    TemplateField fields[TEMPLATE_FIELDS_MAX]; // of the spec, then those of the schedule
    uint32_t n_fields, n_schedule;
} Template;

bool template_find(const char *name, Template *out); // false: there is no such template
#endif
