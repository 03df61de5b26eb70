#include "compiler/ir/template.h"

#include "runtime/base/err.h"
#include "runtime/base/num.h"

static const struct {
    const char *name, *args, *fields, *schedule;
} rows[] = {
#define TEMPLATE(name, args, fields, schedule) {#name, args, fields, schedule},
#include "templates/templates.def"
#undef TEMPLATE
};

// Cuts the text before the first `sep`, or all of it, from *rest.
static Str cut(Str *rest, char sep) {
    const char *at = rest->len ? memchr(rest->ptr, sep, rest->len) : NULL;
    size_t n = at ? (size_t)(at - rest->ptr) : rest->len;
    Str head = str_sub(*rest, 0, n);
    *rest = str_from(*rest, at ? n + 1 : n);
    return head;
}

static void parse_arg(Str text, TemplateArg *out) {
    out->name = cut(&text, ':');
    Str mode = cut(&text, ':');
    out->type = text;
    out->reads = memchr(mode.ptr, 'r', mode.len) != NULL;
    out->writes = memchr(mode.ptr, 'w', mode.len) != NULL;
}

static uint32_t parse_fields(Str text, TemplateField *out) {
    uint32_t n = 0;
    while (text.len) {
        Str field = cut(&text, ' ');
        CHECK(n < TEMPLATE_FIELDS_MAX && field.len > 2);
        out[n++] = (TemplateField){str_sub(field, 0, field.len - 2), field.ptr[field.len - 1]};
    }
    return n;
}

bool template_find(const char *name, Template *out) {
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (strcmp(rows[i].name, name)) continue;
        *out = (Template){.name = rows[i].name};
        for (Str rest = str_of(rows[i].args); rest.len;) {
            CHECK(out->n_args < TEMPLATE_ARGS_MAX);
            parse_arg(cut(&rest, ' '), &out->args[out->n_args++]);
        }
        out->n_fields = parse_fields(str_of(rows[i].fields), out->fields);
        out->n_schedule = parse_fields(str_of(rows[i].schedule), out->fields + out->n_fields);
        return true;
    }
    return false;
}
