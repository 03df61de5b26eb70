// The chat template of a checkpoint: Jinja source in, a small program (runtime/text/chat_format.h) out.
//
// The environment is that of transformers: trim_blocks, lstrip_blocks, break and continue, {% generation %},
// an immutable sandbox. What lies outside of the subset is refused here, by name and place, never at run
// time.
#ifndef ADALLM_FRONTEND_JINJA_H
#define ADALLM_FRONTEND_JINJA_H
#include "runtime/base/diag.h"

typedef struct {
    Str name, value;
} JinjaVar; // a variable the template finds unless the caller gives another value: bos_token, eos_token

// Compiles one template and appends its program to *section, the same bytes for the same text. False after
// one located error: E_TEMPLATE (broken), E_TEMPLATE_UNSUPPORTED (valid Jinja, or nearly, that is not run).
bool jinja_compile(Arena *a, const Source *template_src, const JinjaVar *vars, size_t n_vars, StrBuf *section,
                   Diags *d);

// Finds the template of a checkpoint folder (chat_template.jinja, else chat_template of
// tokenizer_config.json, "default" of a list, else chat_template.json), compiles it with the special tokens
// of tokenizer_config.json and special_tokens_map.json, and appends the program to *section. *present says
// whether the folder has a template. False after adding located errors; *present and E_TEMPLATE or
// E_TEMPLATE_UNSUPPORTED then mean that the model can still be compiled without a chat program.
bool chat_pack(Arena *a, const char *model_dir, StrBuf *section, bool *present, Diags *d);
#endif
