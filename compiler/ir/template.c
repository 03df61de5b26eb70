#include "compiler/ir/template.h"

#include "runtime/base/err.h"
#include "runtime/base/num.h"

static const struct {
    const char *name, *args, *fields;
} rows[] = {
#define TEMPLATE(name, args, fields) {#name, args, fields},
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

bool template_find(const char *name, Template *out) {
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (strcmp(rows[i].name, name)) continue;
        *out = (Template){.name = rows[i].name};
        for (Str rest = str_of(rows[i].args); rest.len;) {
            CHECK(out->n_args < TEMPLATE_ARGS_MAX);
            parse_arg(cut(&rest, ' '), &out->args[out->n_args++]);
        }
        for (Str rest = str_of(rows[i].fields); rest.len;) {
            Str field = cut(&rest, ' ');
            CHECK(out->n_fields < TEMPLATE_FIELDS_MAX && field.len > 2);
            out->fields[out->n_fields++] =
                (TemplateField){str_sub(field, 0, field.len - 2), field.ptr[field.len - 1]};
        }
        return true;
    }
    return false;
}
