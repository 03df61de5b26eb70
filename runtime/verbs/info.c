// adallm-rt info: what is in an artifact.
#include <stdio.h>

#include "runtime/base/cli.h"
#include "runtime/base/hash.h"
#include "runtime/base/num.h"
#include "runtime/verbs/open.h"
#include "runtime/verbs/verbs.h"

static void print_hash(const char *name, const uint8_t bytes[32]) {
    Sha256 h;
    char hex[65];
    memcpy(h.bytes, bytes, sizeof h.bytes);
    sha256_hex(h, hex);
    printf("%-16s %s\n", name, hex);
}

static void print_sections(const Artifact *a) {
    printf("\n%-10s %14s %16s   SHA-256\n", "section", "offset", "bytes");
    printf("%-10s %14d %16zu\n", "superblock", 0, sizeof(AdaSuperblock));
    for (uint32_t i = 0; i < a->super->n_sections; i++) {
        const AdaSection *s = &a->sections[i];
        Sha256 h;
        char hex[65] = "(covered by the leaves)";
        memcpy(h.bytes, s->sha256, sizeof h.bytes);
        if (s->kind != ADA_WEIGHTS && s->kind != ADA_HASHES) sha256_hex(h, hex);
        printf("%-10s %14llu %16llu   %s\n", artifact_section_name(s->kind), (unsigned long long)s->offset,
               (unsigned long long)s->bytes, hex);
    }
    printf("%-10s %14s %16llu\n", "file", "", (unsigned long long)a->size);
}

static void print_value(const char *key, int width, const Json *j) {
    printf("%-*s ", width, key);
    switch (j->kind) {
    case JSON_STRING: printf(STR_FMT, STR_ARG(j->s)); break;
    case JSON_BOOL: fputs(j->boolean ? "yes" : "no", stdout); break;
    case JSON_NULL: fputs("none", stdout); break;
    case JSON_INT:
    case JSON_REAL: printf(STR_FMT, STR_ARG(j->s)); break;
    default: break;
    }
}

static bool plain(const Json *j) { return j->kind != JSON_ARRAY && j->kind != JSON_OBJECT; }

// Lists of plain values on one line; anything deeper as it stands in the text.
static void print_member(Str text, const char *key, const Json *j) {
    bool list = j->kind == JSON_ARRAY;
    for (uint32_t i = 0; list && i < j->n; i++) list = plain(&j->items[i]);
    if (plain(j)) {
        print_value(key, 16, j);
        putchar('\n');
    } else if (list) {
        printf("%-16s", key);
        for (uint32_t i = 0; i < j->n; i++) print_value("", 0, &j->items[i]);
        putchar('\n');
    } else {
        printf("%-16s %.*s\n", key, (int)MIN(j->end - j->begin, 1 << 20), text.ptr + j->begin);
    }
}

static void print_info(const Opened *o) {
    const Artifact *a = &o->artifact;
    Str text;
    CHECK(artifact_section(a, ADA_MANIFEST, 0, &text));
    for (uint32_t i = 0; i < o->manifest.json->n; i++) {
        const JsonMember *m = &o->manifest.json->members[i];
        char key[64];
        snprintf(key, sizeof key, STR_FMT, (int)MIN(m->key.len, sizeof key - 1), m->key.ptr);
        print_member(text, key, &m->value);
    }
    printf("%-16s %u.%u\n", "format", a->super->major, a->super->minor);
    print_hash("sources", a->super->sources_hash);
    print_hash("merkle root", a->super->merkle_root);
    print_sections(a);
}

static bool info(Opened *o, void *json, Arena *a, Diags *d) {
    (void)a, (void)d;
    Str text;
    if (!*(bool *)json)
        print_info(o);
    else if (artifact_section(&o->artifact, ADA_MANIFEST, 0, &text))
        fwrite(text.ptr, 1, text.len, stdout);
    return true;
}

int verb_info(int argc, char **argv) {
    bool json = false;
    const Option options[] = {
        {"--json", OPT_FLAG, NULL, 0, 0, &json, NULL, "print the manifest as it stands in the file"}};
    const Command cmd = {
        "adallm-rt info X.ada [--json]",
        "Prints what an artifact is made of: the model, the plan's sizes, where it came from, its sections.",
        options,
        COUNT_OF(options),
        1,
        1};
    return verb_on_artifact(&cmd, argc, argv, ARTIFACT_STRUCTURE, NULL, info, &json);
}
